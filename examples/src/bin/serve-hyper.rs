//! A failure handler as an Inngest app, on hyper alone.
//!
//! ```text
//! INNGEST_DEV=1 cargo run -p examples --bin serve-hyper
//! npx inngest-cli@latest dev -u http://localhost:3000
//! ```
//!
//! hyper has no router: the endpoint answers at every path.

use std::{env, error::Error, io};

use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use inngest_failure::{Dispatcher, Failure, on_failure, serve::Endpoint};
use tokio::net::TcpListener;

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
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    let dispatcher = Dispatcher::builder().build()?;
    let endpoint = Endpoint::builder(dispatcher, "failures").build()?;
    let service = TowerToHyperService::new(endpoint);

    let port = env::args().nth(1).map_or(Ok(3000), |port| port.parse())?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("listening on http://{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        let connection = http1::Builder::new()
            .timer(TokioTimer::new()) // for hyper's limit on how long a request's head may take
            .serve_connection(TokioIo::new(stream), service.clone());
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::warn!(%error, "connection broke");
            }
        });
    }
}
