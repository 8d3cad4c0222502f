//! What failure handlers do, as metrics for Prometheus and as spans for OpenTelemetry.
//!
//! ```text
//! cargo run -p examples --bin observability
//! curl http://127.0.0.1:9464/metrics
//! ```
//!
//! `examples/observability` has a dashboard for Grafana.

use std::{
    error::Error,
    io,
    net::Ipv4Addr,
    process::ExitCode,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use axum::{Router, http::header::CONTENT_TYPE, routing::get};
use clap::Parser;
use examples::events;
use inngest_failure::{
    Backoff, BoxError, BoxFuture, DeadLetter, DeadLetters, Dispatcher, Failure, HandlerError,
    RunContext, handlers, on_failure,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use serde::Deserialize;
use tokio::{net::TcpListener, task::JoinSet};
use tracing_subscriber::{
    Layer, filter::LevelFilter, layer::SubscriberExt, util::SubscriberInitExt,
};

/// Runs recorded failure events through handlers, again and again, and serves what
/// Prometheus reads of it at /metrics on 127.0.0.1
///
/// Finished spans go to standard output, warnings and errors to standard error
#[derive(Parser)]
#[command(name = "observability", verbatim_doc_comment)]
struct Cli {
    /// The port to listen on; 0 takes one that is free
    #[arg(long, env, default_value_t = 9464)]
    port: u16,

    /// How long to wait before the events are dispatched once more
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    every: u64,
}

/// Give the money back; the bank is busy at first.
#[on_failure(function = "checkout", retries = 2)]
async fn refund(context: RunContext) -> Result<(), HandlerError> {
    tokio::time::sleep(Duration::from_millis(30)).await;
    if context.attempt == 0 {
        return Err("the bank is busy".into());
    }
    Ok(())
}

/// Send what could not be sent, slowly.
#[on_failure(function = "send-*")]
async fn resend() {
    tokio::time::sleep(Duration::from_millis(300)).await;
}

/// Put the goods back; the depot never answers.
#[on_failure(function = "pick-parcel", app = "depot", cancelled, timeout = "100ms", retries = 1)]
async fn unpick() {
    std::future::pending::<()>().await;
}

#[derive(Deserialize)]
struct Parcel {
    #[expect(dead_code, reason = "no event has it")]
    parcel_id: String,
}

/// Recall the parcel; the events tell of orders, not of parcels.
#[on_failure(function = "fulfil-order")]
async fn recall(_: Failure<Parcel>) {}

/// Stands for a system of tickets, which is down every third time: the letter is then logged.
#[derive(Default)]
struct Tickets {
    calls: AtomicU32,
}

impl DeadLetters for Tickets {
    fn put<'a>(&'a self, _letter: &'a DeadLetter) -> BoxFuture<'a, Result<(), BoxError>> {
        Box::pin(async {
            match self.calls.fetch_add(1, Ordering::Relaxed) % 3 {
                2 => Err("the ticket system is down".into()),
                _ => Ok(()),
            }
        })
    }
}

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
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, cli.port)).await.map_err(|error| {
        format!("cannot listen on port {}: {error}; choose another one with `--port`", cli.port)
    })?;
    let spans = trace();
    // Before the dispatcher is built: it tells the recorder what its metrics mean.
    let metrics = record()?;
    let dispatcher = Dispatcher::builder()
        .app("shop")
        // The library that this program shares with other examples has the shop's handlers, which are not meant here.
        .without_inventory()
        .register(handlers![refund, resend, unpick, recall])
        .dead_letters(Tickets::default())
        .backoff(Backoff::new().first(Duration::from_millis(100)))
        .build()?;

    dispatch_all(&dispatcher).await?;
    eprintln!("metrics at http://{}/metrics", listener.local_addr()?);
    tokio::select! {
        result = axum::serve(listener, serve(metrics)) => result?,
        result = dispatch_again(&dispatcher, Duration::from_secs(cli.every)) => result?,
        result = tokio::signal::ctrl_c() => result?,
    }
    spans.shutdown()?;
    Ok(())
}

/// All of the example's own events, side by side.
async fn dispatch_all(dispatcher: &Dispatcher) -> Result<(), String> {
    let mut dispatches = JoinSet::new();
    for (_, event) in events::shipped() {
        let (dispatcher, event) = (dispatcher.clone(), event?);
        dispatches.spawn(async move { dispatcher.dispatch(event).await });
    }
    dispatches.join_all().await;
    Ok(())
}

/// The same again and again.
async fn dispatch_again(dispatcher: &Dispatcher, every: Duration) -> Result<(), String> {
    loop {
        tokio::time::sleep(every).await;
        dispatch_all(dispatcher).await?;
    }
}

/// Installs the recorder of what is counted.
fn record() -> Result<PrometheusHandle, Box<dyn Error>> {
    let duration = "inngest_failure_handler_attempt_duration_seconds".to_owned();
    let handle = PrometheusBuilder::new()
        // Without buckets it would be a summary, whose quantiles can't be taken over several processes.
        .set_buckets_for_metric(
            Matcher::Full(duration),
            &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0],
        )?
        .install_recorder()?;
    // Durations are kept one by one until they are asked for, or this is done.
    let upkeep = handle.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            upkeep.run_upkeep();
        }
    });
    Ok(handle)
}

fn serve(metrics: PrometheusHandle) -> Router {
    let headers = [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Router::new().route("/metrics", get(move || async move { (headers, metrics.render()) }))
}

/// Installs the subscriber of spans and of the log.
fn trace() -> SdkTracerProvider {
    let provider = SdkTracerProvider::builder()
        .with_resource(Resource::builder().with_service_name("shop-failures").build())
        // For a program that works: `.with_batch_exporter(..)`, with an exporter that sends spans to a collector.
        .with_simple_exporter(opentelemetry_stdout::SpanExporter::default())
        .build();
    let to_spans = tracing_opentelemetry::layer().with_tracer(provider.tracer("inngest-failure"));
    let to_stderr = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    tracing_subscriber::registry()
        .with(to_spans.with_filter(LevelFilter::INFO))
        .with(to_stderr.with_filter(LevelFilter::WARN))
        .init();
    provider
}
