use inngest_failure::on_failure;

#[on_failure(function = 3)]
async fn number() {}

#[on_failure(function = b"checkout")]
async fn bytes() {}

#[on_failure(function = true)]
async fn boolean() {}

#[on_failure(function = ["checkout", "refund"])]
async fn several() {}

fn main() {}
