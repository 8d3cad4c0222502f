use inngest_failure::on_failure;

#[on_failure(function = "checkout", timeout = "soon")]
async fn word() {}

#[on_failure(function = "refund", timeout = "-5s")]
async fn negative() {}

#[on_failure(function = "ship", timeout = "5 parsecs")]
async fn unknown_unit() {}

#[on_failure(function = "pack", timeout = "")]
async fn empty() {}

fn main() {}
