use inngest_failure::on_failure;

#[on_failure]
async fn bare() {}

#[on_failure()]
async fn empty() {}

#[on_failure(retries = 3)]
async fn others_only() {}

fn main() {}
