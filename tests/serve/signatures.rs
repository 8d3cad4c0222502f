//! Who is believed: in cloud mode only who signs, and what other SDKs were seen to get wrong.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request};
use inngest_failure::{Dispatcher, State, handlers, on_failure};
use serde_json::{Value, json};
use tests::{
    Log, fixture,
    http::{KEY, OTHER_KEY, PATH, Server, call, header, json, signature, signed},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{body, builder, cloud, dev};

type Runs = Arc<AtomicU32>;

#[on_failure(function = "checkout")]
async fn checkout(State(runs): State<Runs>) {
    runs.fetch_add(1, Ordering::SeqCst);
}

const FUNCTION: &str = "shop-failures-shop-checkout-failure";

fn dispatcher(runs: &Runs) -> Dispatcher {
    builder().register(handlers![checkout]).state(Arc::clone(runs)).build().unwrap()
}

/// A server in cloud mode, and how often its handler has run.
async fn server() -> (Server, Runs) {
    let runs = Runs::default();
    (Server::start(cloud(dispatcher(&runs)).build().unwrap()).await, runs)
}

fn unsigned() -> Request<Bytes> {
    call(FUNCTION, body("shop-checkout", json!({})))
}

/// The call, signed so many seconds from now.
fn signed_at(from_now: i64) -> Request<Bytes> {
    let mut request = unsigned();
    let signature = signature(KEY, request.body(), from_now);
    request.headers_mut().insert("x-inngest-signature", signature.parse().unwrap());
    request
}

async fn is_refused(request: Request<Bytes>, because: &str) {
    let (log, _guard) = Log::start(tracing::Level::WARN);
    let (server, runs) = server().await;
    let response = server.send(request).await;
    assert_eq!(response.status(), 401, "{response:?}");
    assert_eq!(header(&response, "x-inngest-no-retry"), "false");
    assert!(header(&response, "x-inngest-sdk").starts_with("inngest-failure:v"));
    let message = json(&response)["message"].as_str().unwrap().to_owned();
    assert!(message.contains(because), "{message}");
    assert!(log.text().contains("request refused, nothing has run"), "{}", log.text());
    assert_eq!(runs.load(Ordering::SeqCst), 0);

    let response = server.send(signed_at(0)).await;
    assert_eq!(response.status(), 200, "it is still up");
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_signed_call_runs_with_either_key() {
    let runs = Runs::default();
    let endpoint = cloud(dispatcher(&runs)).signing_key_fallback(OTHER_KEY).build().unwrap();
    let server = Server::start(endpoint).await;
    for key in [KEY, OTHER_KEY] {
        assert_eq!(server.send(signed(unsigned(), key)).await.status(), 200);
    }
    assert_eq!(runs.load(Ordering::SeqCst), 2);
    let stranger = KEY.replace("a1", "b2");
    assert_eq!(server.send(signed(unsigned(), &stranger)).await.status(), 401);
    assert_eq!(runs.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn an_unsigned_body_of_one_brace_is_refused() {
    // It ended the process of the JavaScript SDK.
    is_refused(call(FUNCTION, "{"), "has no `x-inngest-signature`").await;
}

#[tokio::test]
async fn a_call_that_was_signed_six_minutes_ago_is_refused() {
    // The Python SDK ran it.
    is_refused(signed_at(-360), "more than 5 minutes away").await;
}

#[tokio::test]
async fn a_call_that_is_signed_for_an_hour_ahead_is_refused() {
    // The Python SDK ran it.
    is_refused(signed_at(3600), "more than 5 minutes away").await;
}

#[tokio::test]
async fn an_unsigned_call_is_refused() {
    // The Rust SDK 0.1.1 ran it.
    is_refused(unsigned(), "has no `x-inngest-signature`").await;
}

#[tokio::test]
async fn another_body_than_the_signed_one_is_refused() {
    let mut request = signed_at(0);
    let changed =
        String::from_utf8(request.body().to_vec()).unwrap().replace("declined", "declines");
    *request.body_mut() = changed.into();
    is_refused(request, "not one of this body with the app's signing key").await;
}

#[tokio::test]
async fn two_signatures_are_none() {
    let mut request = signed_at(0);
    let first = request.headers()["x-inngest-signature"].clone();
    request.headers_mut().append("x-inngest-signature", first);
    is_refused(request, "is not `t=<Unix seconds>&s=<64 hex digits>`").await;
}

#[tokio::test]
async fn nothing_is_parsed_before_the_signature_holds() {
    // Each is a fault of its own that somebody who signs would be told of.
    is_refused(signed(call("no-such-function", "{"), OTHER_KEY), "not one of this body").await;
    is_refused(signed(call("", "\u{0}"), OTHER_KEY), "not one of this body").await;
}

#[tokio::test]
async fn in_dev_mode_a_signature_counts_if_there_are_one_and_a_key() {
    let runs = Runs::default();
    let server = Server::start(dev(dispatcher(&runs)).signing_key(KEY).build().unwrap()).await;
    assert_eq!(server.send(unsigned()).await.status(), 200);
    assert_eq!(server.send(signed(unsigned(), KEY)).await.status(), 200);
    assert_eq!(server.send(signed(unsigned(), OTHER_KEY)).await.status(), 401);
    assert_eq!(runs.load(Ordering::SeqCst), 2);

    let server = Server::start(dev(dispatcher(&runs)).build().unwrap()).await;
    assert_eq!(
        server.send(signed(unsigned(), OTHER_KEY)).await.status(),
        200,
        "no key to check it with"
    );
}

#[tokio::test]
async fn a_recorded_signed_call_is_refused_by_now_and_runs_if_it_is_signed_anew() {
    let recorded: Value =
        serde_json::from_slice(&fixture("signed/call-failure-handler.json")).unwrap();
    let runs = Runs::default();
    let key = recorded["signing_key"].as_str().unwrap();
    let endpoint = cloud(dispatcher(&runs)).signing_key(key).build().unwrap();
    let server = Server::start(endpoint).await;
    let mut request =
        Request::builder().method(Method::POST).uri(recorded["url"].as_str().unwrap());
    for (name, value) in recorded["headers"].as_object().unwrap() {
        // The connection is another one.
        if !["connection", "content-length", "accept-encoding"].contains(&name.as_str()) {
            request = request.header(name, value.as_str().unwrap());
        }
    }
    let body = recorded["body"].as_str().unwrap().to_owned();
    let request = request.body(Bytes::from(body)).unwrap();
    assert_eq!(server.send(request.clone()).await.status(), 401);
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    assert_eq!(server.send(signed(request, key)).await.status(), 200);
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_not_read() {
    let runs = Runs::default();
    let endpoint = cloud(dispatcher(&runs)).body_limit(1_000).build().unwrap();
    let server = Server::start(endpoint).await;
    let response = server.send(signed(call(FUNCTION, vec![b' '; 1_001]), KEY)).await;
    assert_eq!(response.status(), 413);
    let message = json(&response)["message"].as_str().unwrap().to_owned();
    assert_eq!(
        message,
        "the body is larger than 1000 bytes; the endpoint's `body_limit` sets the limit"
    );
    assert_eq!(server.send(signed(unsigned(), KEY)).await.status(), 200);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let runs = Runs::default();
    let endpoint =
        cloud(dispatcher(&runs)).body_timeout(Duration::from_millis(10)).build().unwrap();
    let server = Server::start(endpoint).await;
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: localhost\r\nx-inngest-signature: {}\r\ncontent-length: 2\r\n\r\n{{",
        signature(KEY, b"{}", 0),
    );
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 1_000];
    let read = stream.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("the body did not come within 10ms"), "{answer}");
    assert_eq!(server.send(signed(unsigned(), KEY)).await.status(), 200);
}

#[tokio::test]
async fn other_methods_are_told_which_there_are() {
    let (server, _) = server().await;
    for method in [Method::DELETE, Method::PATCH, Method::OPTIONS] {
        let request = Request::builder().method(method).uri(PATH).body(Bytes::new()).unwrap();
        let response = server.send(request).await;
        assert_eq!(response.status(), 405);
        assert_eq!(header(&response, "allow"), "GET, POST, PUT");
    }
}
