//! The shop's failure handlers as an Inngest app, on axum; `examples/src/shop` has the handlers.
//!
//! In one terminal the app, in another Inngest's dev server, which finds it and calls it:
//!
//! ```text
//! INNGEST_DEV=1 cargo run -p examples --bin serve
//! npx inngest-cli@latest dev -u http://localhost:3000/api/failures
//! ```
//!
//! The rollback of a failed checkout asks that server what the run had done.

use std::{error::Error, io, net::Ipv4Addr, path::PathBuf, process::ExitCode};

use axum::Router;
use clap::Parser;
use examples::shop::{self, Store};
use inngest_failure::serve::Endpoint;
use tokio::net::TcpListener;
use tracing_subscriber::filter::LevelFilter;

const PATH: &str = "/api/failures";

/// Serves a shop's failure handlers to Inngest, at /api/failures on 127.0.0.1
///
/// The failed functions are of the apps `shop` and `depot`, the handlers are the app
/// `shop-failures`
#[derive(Parser)]
#[command(name = "serve", after_help = AFTER_HELP, verbatim_doc_comment)]
struct Cli {
    /// The port to listen on; 0 takes one that is free
    #[arg(long, env, default_value_t = 3000)]
    port: u16,

    /// Keep the books in this file from one run to the next [default: in memory]
    #[arg(long, value_name = "FILE")]
    database: Option<PathBuf>,
}

const AFTER_HELP: &str = "\
Environment:
  INNGEST_DEV=1                 unsigned calls are believed, as the dev server makes them
  INNGEST_SIGNING_KEY           without INNGEST_DEV: what calls must be signed with

Exit status:
  0  stopped by Ctrl-C or SIGTERM, after the calls that had begun were answered
  2  the command line, the environment, the database or the port is wrong

Examples:
  INNGEST_DEV=1 cargo run -p examples --bin serve
  npx inngest-cli@latest dev -u http://localhost:3000/api/failures   in another terminal";

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

async fn run(cli: Cli) -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_max_level(LevelFilter::INFO).with_writer(io::stderr).init();
    let store = Store::open(cli.database.as_deref())?;
    let endpoint = Endpoint::builder(shop::dispatcher(&store).build()?, "shop-failures").build()?;
    let app = Router::new().route_service(PATH, endpoint);

    // In dev mode whoever reaches the endpoint is believed: so nobody but this machine does.
    let address = (Ipv4Addr::LOCALHOST, cli.port);
    let listener = TcpListener::bind(address).await.map_err(|error| {
        format!("cannot listen on port {}: {error}; choose another one with `--port`", cli.port)
    })?;
    let stop = stop_signal()?;
    println!("listening on http://{}{PATH}", listener.local_addr()?);
    axum::serve(listener, app).with_graceful_shutdown(stop).await?;
    Ok(())
}

/// Done at the first Ctrl-C or SIGTERM from now on.
#[cfg(unix)]
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("stopping, once the calls that have begun are answered");
    })
}

/// Done at the first Ctrl-C from now on.
#[cfg(windows)]
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = tokio::signal::windows::ctrl_c()?;
    Ok(async move {
        interrupt.recv().await;
        tracing::info!("stopping, once the calls that have begun are answered");
    })
}
