//! A failure handler as an Inngest app, on AWS Lambda behind a function URL or an HTTP API.
//!
//! The function's environment says what it needs to know:
//!
//! ```text
//! INNGEST_SIGNING_KEY=signkey-prod-..
//! INNGEST_SERVE_ORIGIN=https://abcdefgh.lambda-url.eu-central-1.on.aws
//! INNGEST_SERVE_PATH=/
//! ```
//!
//! The last two are where Inngest reaches it, which behind a gateway, a stage or a domain of one's own is not
//! what a request says.

use inngest_failure::{Dispatcher, Failure, on_failure, serve::Endpoint};

/// Put every failure that has no other handler into the log.
#[on_failure(fallback, id = "log")]
async fn log(failure: Failure) {
    tracing::error!(
        function_id = failure.function_id,
        run_id = failure.run_id,
        "{}",
        failure.error
    );
}

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    // The log of a Lambda function has a time of its own, and no colours.
    tracing_subscriber::fmt().without_time().with_ansi(false).init();
    let dispatcher = Dispatcher::builder().build()?;
    let endpoint = Endpoint::builder(dispatcher, "failures").build()?;
    lambda_http::run(endpoint).await
}
