use inngest_failure::on_failure;

const OPEN: &str = "event.data.function_id + 'x";

#[on_failure(function = "a", idempotency = "")]
async fn blank() {}

#[on_failure(function = "b", idempotency = "'refund'")]
async fn constant() {}

#[on_failure(function = "c", idempotency = "string(event.ts")]
async fn bracket() {}

#[on_failure(function = "d", idempotency = OPEN)]
async fn quote() {}

#[on_failure(function = "e", idempotency = 5)]
async fn number() {}

fn main() {}
