//! Generated requests of people who are not Inngest, and broken ones of somebody who has its key: an answer
//! each, never a panic, and never a handler run without a valid signature.
//!
//! A hundredth of them runs with every `cargo test`; all of them with
//!
//! ```sh
//! cargo test -p tests --release --test hostile --test load -- --ignored --nocapture
//! ```

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, Uri};
use http_body::Frame;
use inngest_failure::{
    Dispatcher, Failure, State, handlers, on_failure,
    serve::{Body, Endpoint},
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde_json::Value;
use tests::{
    fixture,
    http::{KEY, OTHER_KEY, Server, nowhere, signature},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tower::ServiceExt;

type Runs = Arc<AtomicUsize>;

#[on_failure(function = "checkout")]
async fn checkout(State(runs): State<Runs>, failure: Result<Failure, inngest_failure::ParseError>) {
    let _ = failure;
    runs.fetch_add(1, Ordering::SeqCst);
}

const FUNCTION: &str = "shop-failures-shop-checkout-failure";

fn endpoint(runs: &Runs) -> Endpoint {
    let dispatcher = Dispatcher::builder()
        .without_inventory()
        .app("shop")
        .register(handlers![checkout])
        .state(Arc::clone(runs))
        .build()
        .unwrap();
    Endpoint::builder(dispatcher, "shop-failures")
        .dev(false)
        .signing_key(KEY)
        .api_origin(nowhere())
        .body_limit(16 * 1024)
        .body_timeout(Duration::from_millis(5))
        .build()
        .unwrap()
}

/// The body of a recorded call.
fn recorded() -> Vec<u8> {
    let call: Value = serde_json::from_slice(&fixture("signed/call-failure-handler.json")).unwrap();
    call["body"].as_str().unwrap().into()
}

fn bytes(random: &mut StdRng, max: usize) -> Vec<u8> {
    (0..random.random_range(0..=max)).map(|_| random.random()).collect()
}

/// The recorded body, more or less.
fn body(recorded: &[u8], random: &mut StdRng) -> Vec<u8> {
    let mut body = recorded.to_vec();
    let at = random.random_range(0..body.len());
    match random.random_range(0..10) {
        0 => body.truncate(at),
        1 => body = bytes(random, 200),
        2 => body = vec![b'['; random.random_range(0..10_000)],
        3 => body = br#"{"ctx":"#.repeat(random.random_range(1..1_000)),
        4 => body.extend(vec![b' '; 20_000]),
        5 => {
            let from = random.random_range(0..body.len());
            let piece = body[from.min(at)..from.max(at)].to_vec();
            body.splice(at..at, piece);
        }
        6 => {
            for _ in 0..random.random_range(1..20) {
                let at = random.random_range(0..body.len());
                body[at] = random.random();
            }
        }
        7 => {
            let text = String::from_utf8(body).unwrap();
            let (from, to) = *[
                ("\"attempt\":0", "\"attempt\":-1"),
                ("\"attempt\":0", "\"attempt\":4294967295"),
                ("\"max_attempts\":3", "\"max_attempts\":1e400"),
                ("\"use_api\":false", "\"use_api\":true"),
                ("\"ts\":", "\"ts\":9e"),
                ("\"run_id\":\"", "\"run_id\":\"../"),
                ("\"data\":{", "\"data\":null,\"x\":{"),
            ]
            .choose(random)
            .unwrap();
            body = text.replace(from, to).into();
        }
        _ => {}
    }
    body
}

fn method(random: &mut StdRng) -> Method {
    let others = ["GET", "PUT", "HEAD", "DELETE", "OPTIONS", "TRACE", "PATCH", "BREW"];
    match random.random_bool(0.75) {
        true => Method::POST,
        false => others.choose(random).unwrap().parse().unwrap(),
    }
}

fn uri(random: &mut StdRng) -> String {
    let paths = ["/api/failures", "/", "//", "/..", "/%00", "/api/failures/", "/\u{7f}", "*"];
    let queries = [
        "",
        "?",
        "?fnId",
        "?fnId=",
        "?fnId=%",
        "?fnId=%ff%fe",
        "?fnId=+",
        "?fnId=unknown&fnId=",
        "?&&==&",
        "?stepId=step",
        "?deployId=%0d%0ax:y",
        "?fnId=a%20b&stepId=..",
    ];
    if random.random_bool(0.6) {
        return format!("/api/failures?fnId={FUNCTION}&stepId=step");
    }
    format!("{}{}", paths.choose(random).unwrap(), queries.choose(random).unwrap())
}

fn signature_header(body: &[u8], is_valid: bool, random: &mut StdRng) -> Option<String> {
    if is_valid {
        return Some(signature(KEY, body, random.random_range(-200..200)));
    }
    let good = signature(KEY, body, 0);
    let (time, mac) = good[2..].split_once("&s=").unwrap();
    Some(match random.random_range(0..12) {
        0 => return None,
        1 => signature(OTHER_KEY, body, 0),
        2 => signature(KEY, body, -random.random_range(302..100_000)),
        3 => signature(KEY, body, random.random_range(302..i64::MAX / 4)),
        4 => signature(KEY, &[body, b"x"].concat(), 0),
        5 => bytes(random, 100)
            .into_iter()
            .filter(|byte| *byte >= b' ' && *byte != 0x7f)
            .map(char::from)
            .collect(),
        6 => format!("t={time}"),
        7 => format!("s={mac}"),
        8 => format!("t={time}&s={}", &mac[..random.random_range(0..mac.len())]),
        9 => format!("t={time}&s={mac}&s={mac}"),
        10 => format!("t=+{time}&s={mac}"),
        _ => format!("t={time}&s={}", mac.replace(&mac[..1], "g")),
    })
}

fn header(random: &mut StdRng) -> (HeaderName, HeaderValue) {
    let names = [
        "host",
        "x-inngest-sync-kind",
        "x-inngest-server-kind",
        "x-forwarded-proto",
        "traceparent",
        "content-type",
        "x-run-id",
        "x-inngest-req-version",
        "accept-encoding",
    ];
    let values: [&[u8]; 10] = [
        b"",
        b"in_band",
        b"a b",
        b"user:pass@host",
        b"[::1]:x",
        b"\xff\xfe",
        b"http,https",
        b"gzip",
        b"00-684513db87f533855d47dca50191a18e-43bd3ee5bff04e44-01",
        &[b'x'; 5_000],
    ];
    let name = HeaderName::from_static(names.choose(random).unwrap());
    (name, HeaderValue::from_bytes(values.choose(random).unwrap()).unwrap())
}

/// A body that comes in pieces, and may break or never end.
struct Pieces {
    frames: VecDeque<Bytes>,
    end: End,
}

#[derive(Clone, Copy)]
enum End {
    Whole,
    Broken,
    Never,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match (self.frames.pop_front(), self.end) {
            (Some(frame), _) => Poll::Ready(Some(Ok(Frame::data(frame)))),
            (None, End::Whole) => Poll::Ready(None),
            (None, End::Broken) => {
                Poll::Ready(Some(Err(io::Error::other("the connection is gone"))))
            }
            (None, End::Never) => Poll::Pending,
        }
    }
}

/// One request, and whether its signature is one of its whole body.
fn request(recorded: &[u8], is_valid: bool, random: &mut StdRng) -> Request<Pieces> {
    let body = body(recorded, random);
    let signature = signature_header(&body, is_valid, random);
    let size = *[1, 7, 100, 4096, 1 << 20].choose(random).unwrap();
    let frames = body.chunks(size).map(Bytes::copy_from_slice).collect();
    let end = *[End::Whole, End::Whole, End::Whole, End::Whole, End::Broken, End::Never]
        .choose(random)
        .unwrap();
    let mut request = Request::new(Pieces { frames, end });
    *request.method_mut() = method(random);
    // What `http` does not take as a URI, no server passes on.
    *request.uri_mut() = uri(random).parse().unwrap_or(Uri::from_static("/"));
    for _ in 0..random.random_range(0..4) {
        let (name, value) = header(random);
        request.headers_mut().append(name, value);
    }
    if random.random_bool(0.05) {
        request
            .headers_mut()
            .insert("content-length", HeaderValue::from_static("99999999999999999999"));
    }
    if let Some(signature) = signature.and_then(|signature| HeaderValue::try_from(signature).ok()) {
        request.headers_mut().insert("x-inngest-signature", signature.clone());
        if !is_valid && random.random_bool(0.1) {
            request.headers_mut().append("x-inngest-signature", signature);
        }
    }
    request
}

/// How many requests were answered with each status.
type Statuses = BTreeMap<u16, usize>;

async fn without_a_socket(count: usize, is_valid: bool, seed: u64) -> (Statuses, usize) {
    let runs = Runs::default();
    let endpoint = endpoint(&runs);
    let recorded = recorded();
    let mut random = StdRng::seed_from_u64(seed);
    let mut statuses = Statuses::new();
    for number in 0..count {
        let request = request(&recorded, is_valid, &mut random);
        let what = format!("{number}: {} {}", request.method(), request.uri());
        let is_broken = matches!(request.body().end, End::Broken);
        let answer = tokio::spawn(endpoint.clone().oneshot(request));
        let answer: Result<Response<Body>, Infallible> =
            answer.await.unwrap_or_else(|panic| panic!("{what}: {panic}"));
        let status = answer.unwrap().status().as_u16();
        let may_be = match status {
            200 | 401 | 405 | 408 | 413 => true,
            // An unsigned sync out of band is tried, and there is no server to sync with.
            500 => is_valid || what.contains("PUT"),
            400 => is_valid || is_broken,
            _ => false,
        };
        assert!(may_be, "{what}: {status}");
        *statuses.entry(status).or_default() += 1;
    }
    assert_eq!(statuses.values().sum::<usize>(), count);
    (statuses, runs.load(Ordering::SeqCst))
}

/// The same as bytes, some of which are no HTTP at all: whatever comes of it, the server stays up.
async fn over_sockets(count: usize, seed: u64) -> (usize, usize) {
    let runs = Runs::default();
    let server = Server::start(endpoint(&runs)).await;
    let recorded = recorded();
    let mut random = StdRng::seed_from_u64(seed);
    let mut answered = 0;
    for _ in 0..count {
        let body = body(&recorded, &mut random);
        let mut sent =
            format!("{} {} HTTP/1.1\r\nhost: localhost\r\n", method(&mut random), uri(&mut random))
                .into_bytes();
        if let Some(signature) = signature_header(&body, false, &mut random) {
            sent.extend(format!("x-inngest-signature: {signature}\r\n").into_bytes());
        }
        let length = match random.random_range(0..6) {
            0 => body.len() + 1,
            1 => body.len().saturating_sub(1),
            _ => body.len(),
        };
        sent.extend(format!("content-length: {length}\r\nconnection: close\r\n\r\n").into_bytes());
        sent.extend(&body);
        let is_truncated = random.random_bool(0.2);
        if is_truncated {
            sent.truncate(random.random_range(0..sent.len()));
        }
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        for piece in sent.chunks(*[100, 1_000, 1 << 20].choose(&mut random).unwrap()) {
            if stream.write_all(piece).await.is_err() {
                break; // it has answered already, and hung up
            }
            tokio::task::yield_now().await;
        }
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let reading = stream.read_to_end(&mut answer);
        let read = tokio::time::timeout(Duration::from_secs(10), reading).await;
        assert!(read.is_ok(), "neither an answer nor an end: {}", String::from_utf8_lossy(&sent));
        let is_answer = answer.starts_with(b"HTTP/1.1 ");
        // A connection that is reset takes what was not yet read of the answer with it.
        assert!(
            is_answer || is_truncated || read.unwrap().is_err() || length > body.len(),
            "{}",
            String::from_utf8_lossy(&sent)
        );
        answered += usize::from(is_answer);
    }
    (answered, runs.load(Ordering::SeqCst))
}

async fn attack(count: usize) {
    let (statuses, runs) = without_a_socket(count / 2, false, 20_261_125).await;
    println!("{} requests without a valid signature: {statuses:?}, {runs} runs", count / 2);
    assert_eq!(runs, 0, "a handler has run for somebody who is not Inngest");
    assert!(statuses[&401] > count / 8, "{statuses:?}");

    let (statuses, runs) = without_a_socket(count / 4, true, 20_261_126).await;
    println!("{} requests with one: {statuses:?}, {runs} runs", count / 4);
    assert!(runs > count / 100, "so few runs say nothing: {runs}");

    let (answered, runs) = over_sockets(count / 4, 20_261_127).await;
    println!("{} over sockets: {answered} answered, {runs} runs", count / 4);
    assert_eq!(runs, 0, "a handler has run for somebody who is not Inngest");
    assert!(answered > count / 8, "so few answers say nothing: {answered}");
}

#[tokio::test]
async fn every_request_gets_an_answer_and_no_stranger_a_run() {
    attack(200).await;
}

#[tokio::test]
#[ignore = "the full count, for a release build"]
async fn every_request_gets_an_answer_and_no_stranger_a_run_in_full() {
    attack(20_000).await;
}
