//! A program with a command line for operators, whose handlers leave a trace of what they did.
//!
//! Each line that they add to the file `EFFECTS` is a side effect. While the file `BROKEN` exists, what it names fails.

use std::{
    env,
    fs::{self, OpenOptions},
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use inngest_failure::{
    Api, Backoff, Dispatcher, Failure, HandlerError, JsonLines, Step, StepOutput, cli, on_failure,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Order {
    order_id: String,
}

/// Give the money back, and say so.
#[on_failure(function = "checkout", retries = 1)]
async fn refund(failure: Failure<Order>, step: Step) -> Result<String, HandlerError> {
    let order = &failure.event.data.order_id;
    step.run("refund", async || effect("refund", order)).await?;
    step.run("tell", async || effect("tell", order)).await?;
    Ok(format!("refunded {order}"))
}

/// Count every failure.
#[on_failure(function = "*", id = "count")]
fn count(failure: Failure) -> Result<(), HandlerError> {
    effect("count", &failure.run_id)
}

/// Takes its time.
#[on_failure(function = "slow", retries = 0, timeout = "20s")]
async fn slow(failure: Failure) -> Result<(), HandlerError> {
    effect("slow-began", &failure.run_id)?;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    effect("slow-ended", &failure.run_id)
}

/// Tells somebody, not too often.
#[on_failure(
    function = "report-*",
    id = "report",
    rate_limit = "1/1h",
    concurrency = 1,
    priority = 10
)]
async fn report(failure: Failure) -> Result<(), HandlerError> {
    effect("report", &failure.run_id)
}

/// Give the stock back.
#[on_failure(function = "stock", step = "reserve", retries = 0)]
async fn release(reserved: StepOutput<serde_json::Value>) -> Result<(), HandlerError> {
    effect("release", &reserved.idempotency_key())
}

/// Adds a line to the file of side effects.
fn effect(what: &str, of: &str) -> Result<(), HandlerError> {
    let broken = env::var("BROKEN").ok().and_then(|file| fs::read_to_string(file).ok());
    if broken.is_some_and(|broken| broken.split_whitespace().any(|broken| broken == what)) {
        return Err(format!("`{what}` is broken").into());
    }
    if let Ok(file) = env::var("EFFECTS") {
        let mut file = OpenOptions::new().create(true).append(true).open(file)?;
        file.write_all(format!("{what} {of}\n").as_bytes())?;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    if env::var("LOG").is_ok() {
        tracing_subscriber::fmt().with_writer(io::stderr).init();
    }
    let mut builder = Dispatcher::builder()
        .app("shop")
        .backoff(Backoff::new().first(Duration::from_millis(1)).max(Duration::from_millis(2)));
    if let Ok(file) = env::var("LETTERS") {
        match JsonLines::open(file) {
            Ok(letters) => builder = builder.dead_letters(letters),
            Err(error) => {
                eprintln!("error: {error}");
                return ExitCode::from(2);
            }
        }
    }
    if env::var("INNGEST_DEV").is_ok() {
        match Api::from_env() {
            Ok(api) => builder = builder.api(api),
            Err(error) => {
                eprintln!("error: {error}");
                return ExitCode::from(2);
            }
        }
    }
    cli::run(builder).await
}
