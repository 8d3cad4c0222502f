use inngest_failure::on_failure;

#[on_failure(function)]
async fn no_equals_sign() {}

#[on_failure(function =)]
async fn nothing_after_it() {}

#[on_failure(function = "checkout", timeout, retries = )]
async fn two() {}

fn main() {}
