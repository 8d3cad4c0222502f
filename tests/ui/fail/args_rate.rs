use inngest_failure::on_failure;

#[on_failure(function = "a", throttle = 10)]
async fn number() {}

#[on_failure(function = "b", throttle = "10")]
async fn no_period() {}

#[on_failure(function = "c", rate_limit = "0/5m")]
async fn zero() {}

#[on_failure(function = "d", rate_limit = "-1/5m")]
async fn negative() {}

#[on_failure(function = "e", throttle = "10/m")]
async fn no_number() {}

#[on_failure(function = "f", throttle = "10/60")]
async fn no_unit() {}

#[on_failure(function = "g", rate_limit = "1/25h")]
async fn a_day_at_most() {}

#[on_failure(function = "h", throttle = "1/8d")]
async fn a_week_at_most() {}

#[on_failure(function = "i", throttle = "1/500ms")]
async fn a_second_at_least() {}

#[on_failure(function = "j", throttle = "1/1s500ms")]
async fn whole_seconds() {}

#[on_failure(function = "k", ratelimit = "1/5m")]
async fn misspelt() {}

fn main() {}
