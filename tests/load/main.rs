//! 256 connections, and handlers that succeed, fail, panic and hang: every request is answered, memory stays flat,
//! and a shutdown lets what has begun come to its end.
//!
//! A hundredth of the time runs with every `cargo test`; all of it with
//!
//! ```sh
//! cargo test -p tests --release --test hostile --test load -- --ignored --nocapture
//! ```

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::{client, server};
use hyper_util::{rt::TokioIo, server::graceful::GracefulShutdown, service::TowerToHyperService};
use inngest_failure::{
    Dispatcher, Failure, HandlerError, State, handlers, on_failure, serve::Endpoint,
};
use rand::{SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde::Deserialize;
use serde_json::json;
use tests::{
    http::{KEY, call, signed},
    memory, silence_panics,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinSet,
    time::Instant,
};

const CONNECTIONS: usize = 256;

#[derive(Deserialize)]
struct Order {
    act: Act,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum Act {
    Succeed,
    Fail,
    FailForGood,
    Panic,
    Hang,
}

const ACTS: [Act; 5] = [Act::Succeed, Act::Fail, Act::FailForGood, Act::Panic, Act::Hang];

#[on_failure(function = "checkout", timeout = "20ms")]
async fn checkout(
    failure: Failure<Order>,
    State(started): State<Arc<AtomicUsize>>,
) -> Result<(), HandlerError> {
    started.fetch_add(1, Ordering::Relaxed);
    match failure.event.data.act {
        Act::Succeed => Ok(()),
        Act::Fail => Err("expected under load".into()),
        Act::FailForGood => Err(HandlerError::non_retriable("expected under load")),
        Act::Panic => panic!("expected under load"),
        Act::Hang => std::future::pending().await,
    }
}

impl Act {
    /// The status and the error's name.
    fn answer(self) -> (u16, Option<&'static str>) {
        match self {
            Self::Succeed => (200, None),
            Self::Fail => (500, Some("Error")),
            Self::FailForGood => (400, Some("Error")),
            Self::Panic => (500, Some("Panic")),
            Self::Hang => (500, Some("TimedOut")),
        }
    }

    /// A call that is signed now.
    fn call(self) -> Request<Bytes> {
        let event = json!({
            "name": "inngest/function.failed",
            "data": {
                "function_id": "shop-checkout", "run_id": "r1", "error": { "message": "boom" },
                "event": { "data": { "act": format!("{self:?}"), "notes": "n".repeat(2_000) } },
            },
        });
        let ctx = json!({ "run_id": "r2", "attempt": 0, "max_attempts": 4, "use_api": false });
        let body = json!({ "ctx": ctx, "event": event, "events": [event] }).to_string();
        let mut request = signed(call("shop-failures-shop-checkout-failure", body), KEY);
        request.headers_mut().insert("host", "localhost".parse().unwrap());
        request
    }
}

/// Serves until it is told to stop, then lets every connection finish what it has begun.
async fn serve(listener: TcpListener, endpoint: Endpoint, mut stop: oneshot::Receiver<()>) {
    let service = TowerToHyperService::new(endpoint);
    let graceful = GracefulShutdown::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let stream = TokioIo::new(accepted.unwrap().0);
                let connection = server::conn::http1::Builder::new().serve_connection(stream, service.clone());
                tokio::spawn(graceful.watch(connection));
            }
            _ = &mut stop => break,
        }
    }
    drop(listener);
    graceful.shutdown().await;
}

/// One connection, until the server has shut down: what was answered, by act.
async fn connection(
    stream: TcpStream,
    seed: u64,
    is_stopping: Arc<AtomicBool>,
) -> BTreeMap<&'static str, usize> {
    let (mut sender, connection) =
        client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut random = StdRng::seed_from_u64(seed);
    let mut answers = BTreeMap::new();
    loop {
        if sender.ready().await.is_err() {
            // An idle connection may be closed, but only by a server that shuts down.
            assert!(is_stopping.load(Ordering::SeqCst), "the server has hung up");
            break;
        }
        let act = *ACTS.choose(&mut random).unwrap();
        let response = match sender.try_send_request(act.call().map(Full::new)).await {
            Ok(response) => response,
            // It was not sent: the server had closed the idle connection at the same moment.
            Err(error) if error.message().is_some() => continue,
            Err(error) => {
                let error = error.into_error();
                let crossed = is_stopping.load(Ordering::SeqCst) && error.is_incomplete_message();
                assert!(crossed, "no answer: {error}");
                *answers.entry("crossed").or_default() += 1;
                break;
            }
        };
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((status, body["name"].as_str()), act.answer(), "{body}");
        *answers.entry(act.answer().1.unwrap_or("Ok")).or_default() += 1;
    }
    connection.abort();
    answers
}

async fn load(time: Duration) {
    silence_panics("expected under load");
    let started = Arc::new(AtomicUsize::new(0));
    let dispatcher = Dispatcher::builder()
        .without_inventory()
        .app("shop")
        .register(handlers![checkout])
        .state(Arc::clone(&started))
        .build()
        .unwrap();
    let endpoint =
        Endpoint::builder(dispatcher, "shop-failures").dev(false).signing_key(KEY).build().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let server = tokio::spawn(serve(listener, endpoint, stopped));
    let is_stopping = Arc::new(AtomicBool::new(false));
    let mut connections = JoinSet::new();
    for seed in 0..CONNECTIONS {
        let stream = TcpStream::connect(address).await.unwrap();
        connections.spawn(connection(stream, seed as u64, Arc::clone(&is_stopping)));
    }

    tokio::time::sleep(time / 5).await;
    let early = memory();
    tokio::time::sleep(time * 4 / 5).await;
    let late = memory();
    is_stopping.store(true, Ordering::SeqCst);
    stop.send(()).unwrap();
    let shutdown = Instant::now();
    let drained = tokio::time::timeout(Duration::from_secs(10), server).await;
    drained.expect("the shutdown does not end").unwrap();

    let mut answers = BTreeMap::<&str, usize>::new();
    while let Some(of_one) = connections.join_next().await {
        for (outcome, count) in of_one.unwrap() {
            *answers.entry(outcome).or_default() += count;
        }
    }
    let crossed = answers.remove("crossed").unwrap_or(0);
    let answered = answers.values().sum::<usize>();
    println!(
        "{answered} answers over {CONNECTIONS} connections in {time:?}: {answers:?}; {crossed} sent as the server \
         closed an idle connection; {early} MiB early, {late} MiB late; shutdown in {:?}",
        shutdown.elapsed()
    );
    assert_eq!(started.load(Ordering::SeqCst), answered, "a handler ran whose answer nobody got");
    assert_eq!(answers.len(), 4, "an outcome is missing: {answers:?}");
    assert!(late <= early + 32, "memory grew from {early} to {late} MiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_is_answered() {
    load(Duration::from_millis(300)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the full time, for a release build"]
async fn every_request_is_answered_in_full() {
    load(Duration::from_secs(30)).await;
}
