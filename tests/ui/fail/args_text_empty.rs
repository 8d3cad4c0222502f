use inngest_failure::on_failure;

#[on_failure(function = "")]
async fn function() {}

#[on_failure(function = "checkout", app = "")]
async fn app() {}

#[on_failure(function = "checkout", error = "")]
async fn error() {}

#[on_failure(function = "checkout", id = "")]
async fn id() {}

#[on_failure(function = "checkout", name = "")]
async fn name() {}

fn main() {}
