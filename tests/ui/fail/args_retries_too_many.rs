use inngest_failure::on_failure;

#[on_failure(function = "checkout", retries = 21)]
async fn one_too_many() {}

#[on_failure(function = "refund", retries = 99999999999)]
async fn no_end() {}

fn main() {}
