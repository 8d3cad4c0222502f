//! What the endpoint costs over real HTTP, beside a bare hyper service that reads the same body, checks the same
//! signature, takes the same fields and answers:
//!
//! `cargo bench -p inngest-failure --features serve --bench endpoint`
//!
//! Each server is a process of its own on the first core, the driver with its 64 connections is on the second.
//! The servers take turns, a round each. The last lines hold the ratios against the limits that the crate keeps.

mod common;

use std::{
    convert::Infallible,
    fs,
    hint::black_box,
    io::{self, BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use common::{Contender, Limit, Ratios, by_hand, is_test, median, ratio};
use hmac::{Hmac, KeyInit, Mac};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use inngest_failure::{Dispatcher, Failure, handlers, on_failure, serve::Endpoint};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::{self, Runtime},
};
use tower_service::Service;

const CONNECTIONS: usize = 64;
const KEY: &str = "signkey-bench-8f1c2d3e4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";

#[derive(Deserialize)]
struct Order {
    order_id: String,
    amount_cents: u64,
}

/// What a handler does in these benchmarks.
fn work(order: &Order, message: &str) {
    black_box((&order.order_id, order.amount_cents, message));
}

#[on_failure(function = "shop-checkout")]
async fn handle(failure: Failure<Order>) {
    work(&failure.event.data, &failure.error.message);
}

fn dispatcher() -> Dispatcher {
    Dispatcher::builder()
        .without_inventory()
        .register(handlers![handle])
        .build()
        .expect("the handler is sound")
}

fn endpoint() -> Endpoint {
    Endpoint::builder(dispatcher(), "bench")
        .dev(false)
        .signing_key(KEY)
        .build()
        .expect("the endpoint is sound")
}

/// The baseline: what someone would write by hand for one handler.
mod bare {
    use super::{
        Bytes, Deserialize, Duration, Full, Hmac, Mac, Order, Request, Response, Sha256,
        SystemTime, by_hand, work,
    };

    #[derive(Deserialize)]
    struct Call {
        event: by_hand::Event<Order>,
        ctx: Ctx,
    }

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "read for the sake of the comparison")]
    struct Ctx {
        run_id: String,
        attempt: u32,
        max_attempts: Option<u32>,
    }

    pub(super) fn answer(key: &Hmac<Sha256>, request: &Request<Bytes>) -> Response<Full<Bytes>> {
        if verified(key, request).is_none() {
            return response(401, "{}");
        }
        match serde_json::from_slice::<Call>(request.body()) {
            Ok(Call { event, ctx }) => {
                std::hint::black_box(ctx);
                work(&event.data.event.data, &event.data.error.message);
                response(200, "null")
            }
            Err(_) => response(400, "{}"),
        }
    }

    fn verified(key: &Hmac<Sha256>, request: &Request<Bytes>) -> Option<()> {
        let header = request.headers().get("x-inngest-signature")?.to_str().ok()?;
        let (time, signature) = header.strip_prefix("t=")?.split_once("&s=")?;
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(time.parse().ok()?);
        if at.elapsed().ok()? > Duration::from_secs(300) {
            return None;
        }
        let mut mac = key.clone();
        mac.update(request.body());
        mac.update(time.as_bytes());
        mac.verify_slice(&hex::decode(signature).ok()?).ok()
    }

    fn response(status: u16, body: &'static str) -> Response<Full<Bytes>> {
        Response::builder()
            .status(status)
            .header("content-type", "application/json")
            .header("x-inngest-sdk", "bare:v0.1.0")
            .header("x-inngest-req-version", "2")
            .body(Full::new(Bytes::from_static(body.as_bytes())))
            .expect("the headers are sound")
    }
}

fn mac() -> Hmac<Sha256> {
    let text = KEY.rsplit('-').next().unwrap_or_default();
    Hmac::new_from_slice(text.as_bytes()).expect("a key of any length")
}

/// A server in a process of its own, which writes its port and then serves until it is killed.
fn serve(kind: &str) {
    pin(0);
    let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        println!("{}", listener.local_addr().expect("a bound address").port());
        if kind == OURS {
            let endpoint = endpoint();
            let service = service_fn(move |request| endpoint.clone().call(request));
            loop {
                let stream = accept(&listener).await;
                tokio::spawn(http1::Builder::new().serve_connection(stream, service.clone()));
            }
        }
        let key = mac();
        loop {
            let stream = accept(&listener).await;
            let key = key.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let key = key.clone();
                async move {
                    let (parts, body) = request.into_parts();
                    let body = body.collect().await.expect("a whole body").to_bytes();
                    Ok::<_, Infallible>(bare::answer(&key, &Request::from_parts(parts, body)))
                }
            });
            tokio::spawn(http1::Builder::new().serve_connection(stream, service));
        }
    });
}

async fn accept(listener: &TcpListener) -> TokioIo<TcpStream> {
    let (stream, _) = listener.accept().await.expect("a connection");
    stream.set_nodelay(true).expect("a socket");
    TokioIo::new(stream)
}

/// Keeps this process on one core.
fn pin(core: usize) {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let allowed = sched_getaffinity(None).expect("the cores of this process");
    let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
    let Some(core) = cores.nth(core) else { return };
    let mut one = CpuSet::new();
    one.set(core);
    sched_setaffinity(None, &one).expect("a core of this process");
}

const OURS: &str = "ours";
const BARE: &str = "bare";

/// A running server.
struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    fn start(kind: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().expect("this program"))
            .args([SERVE, kind])
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts");
        let mut port = String::new();
        let stdout = process.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut port).expect("a port");
        let port: u16 = port.trim().parse().expect("a port");
        Self { process, address: SocketAddr::from(([127, 0, 0, 1], port)) }
    }

    /// The most memory that it has had, in KiB.
    fn peak_memory(&self) -> f64 {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        line.split_whitespace().next().expect("a number").parse().expect("a number")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const SERVE: &str = "--serve";

/// The body of a call of about so many bytes, in which the original event's data stands four times, as Inngest
/// sends it.
fn body(bytes: usize) -> Vec<u8> {
    let call = |items: usize| {
        let item = |i| json!({ "sku": format!("sku-{i}"), "name": "A pair of \"woollen\" socks", "quantity": i });
        let items: Vec<Value> = (0..items).map(item).collect();
        let trigger = json!({
            "id": "01M82EYST656HW4CZ74PSPQWAF",
            "name": "shop/order.placed",
            "data": { "amount_cents": 4200, "items": items, "order_id": "ord_1" },
            "ts": 1795379128134_u64,
            "user": {},
        });
        let event = json!({
            "name": "inngest/function.failed",
            "id": "01M82EYSWM1FDMV0S99ZXDCRBJ",
            "ts": 1795379128258_u64,
            "user": {},
            "data": {
                "_inngest": { "status": "Failed" },
                "error": {
                    "error": "invalid status code: 500", "name": "CardDeclined", "message": "card declined",
                    "stack": "CardDeclined: card declined\n    at charge (/app/src/checkout.ts:41:11)",
                },
                "event": trigger, "events": [trigger],
                "function_id": "shop-checkout", "run_id": "01M82EYSWM1FDMV0S99ZXDCRBJ",
                "result": { "name": "CardDeclined", "message": "card declined", "code": "card_declined" },
            },
        });
        let ctx = json!({
            "attempt": 0, "disable_immediate_execution": false, "env": "", "max_attempts": 4,
            "fn_id": "aace768f-b101-51ed-a0e7-1300752ccc12", "run_id": "01M82EYT4HM8CFGAGFFEN707R8",
            "stack": { "current": 0, "stack": [] }, "step_id": "step", "use_api": false,
        });
        json!({ "ctx": ctx, "event": event, "events": [event], "steps": {}, "use_api": false, "version": 1 })
            .to_string()
    };
    (0..).map(call).find(|call| call.len() >= bytes).expect("a call that is large enough").into()
}

fn signature(body: &[u8]) -> String {
    let now =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock that is right");
    let time = now.as_secs().to_string();
    let mut mac = mac();
    mac.update(body);
    mac.update(time.as_bytes());
    format!("t={time}&s={}", hex::encode(mac.finalize().into_bytes()))
}

const PATH: &str = "/api/failures?fnId=bench-shop-checkout-failure&stepId=step";

/// The bytes of a signed call.
fn request(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nuser-agent: Inngest\r\n\
         traceparent: 00-684513db87f533855d47dca50191a18e-43bd3ee5bff04e44-01\r\n\
         x-inngest-req-version: -1\r\nx-inngest-signature: {}\r\nx-run-id: 01M82EYT4HM8CFGAGFFEN707R8\r\n\
         content-length: {}\r\n\r\n",
        signature(body),
        body.len(),
    );
    [head.as_bytes(), body].concat()
}

/// One call over this connection.
async fn exchange(stream: &mut TcpStream, request: &[u8]) -> io::Result<()> {
    stream.write_all(request).await?;
    let mut answer = [0; 1024];
    let mut read = 0;
    loop {
        read += stream.read(&mut answer[read..]).await?;
        // The answers are that small: `null` is their last line.
        if answer[..read].ends_with(b"\r\n\r\nnull") {
            assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
            return Ok(());
        }
        assert!(read > 0 && read < answer.len(), "{}", String::from_utf8_lossy(&answer[..read]));
    }
}

async fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await.expect("a server");
    stream.set_nodelay(true).expect("a socket");
    stream
}

/// Calls for so long over every connection at once; answers per second.
async fn drive(server: &Server, request: &'static [u8], time: Duration) -> f64 {
    let started = Instant::now();
    let connections = (0..CONNECTIONS).map(|_| {
        let address = server.address;
        tokio::spawn(async move {
            let mut stream = connect(address).await;
            let mut answers = 0_u64;
            while started.elapsed() < time {
                exchange(&mut stream, request).await.expect("an answer");
                answers += 1;
            }
            answers
        })
    });
    let mut answers = 0;
    for connection in connections.collect::<Vec<_>>() {
        answers += connection.await.expect("no panic");
    }
    answers as f64 / started.elapsed().as_secs_f64()
}

/// Calls per second, ours in those of the bare one's.
async fn throughput([ours, bare]: [&Server; 2], body: &[u8], rounds: usize, time: Duration) -> f64 {
    let request: &'static [u8] = request(body).leak();
    // The first round warms up.
    drive(ours, request, time).await;
    drive(bare, request, time).await;
    let mut ratios = Vec::new();
    for _ in 0..rounds {
        ratios.push(drive(ours, request, time).await / drive(bare, request, time).await);
    }
    median(ratios)
}

/// How long a server takes from its start to its first answer, ours in those of the bare one.
fn start(runtime: &Runtime, rounds: usize) -> f64 {
    let request = request(&body(SMALL));
    let time = |kind| {
        let started = Instant::now();
        let server = Server::start(kind);
        runtime.block_on(async {
            exchange(&mut connect(server.address).await, &request).await.expect("an answer");
        });
        started.elapsed().as_secs_f64()
    };
    median((0..rounds).map(|_| time(OURS) / time(BARE)).collect())
}

/// The endpoint without a socket, in those of the dispatcher with the event alone.
fn in_process(runtime: &Runtime, bytes: usize) -> f64 {
    let body = Bytes::from(body(bytes));
    let call: Value = serde_json::from_slice(&body).expect("JSON");
    let event = call["event"].to_string();
    let signature = signature(&body);
    let endpoint = endpoint();
    let dispatcher = dispatcher();
    let called = Contender {
        name: "endpoint",
        work: Box::new(move |n| {
            for _ in 0..n {
                let request = Request::post(PATH)
                    .header("x-inngest-signature", &signature)
                    .body(Full::new(body.clone()))
                    .expect("a request");
                let response = runtime.block_on(endpoint.clone().call(request)).expect("an answer");
                assert_eq!(response.status(), 200);
            }
        }),
    };
    let dispatched = Contender {
        name: "dispatcher",
        work: Box::new(move |n| {
            for _ in 0..n {
                let report = runtime.block_on(dispatcher.dispatch_json(event.as_bytes()));
                assert!(report.expect("an event").is_ok());
            }
        }),
    };
    ratio(&called, &dispatched, (2_000_000 / bytes as u64).max(1))
}

const SMALL: usize = 3_500;
const LARGE: usize = 200_000;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if let [_, serve, kind] = args.as_slice()
        && serve == SERVE
    {
        self::serve(kind);
    }
    pin(1);
    let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let servers = [&Server::start(OURS), &Server::start(BARE)];
    if is_test() {
        let request = request(&body(LARGE));
        for server in servers {
            runtime.block_on(async {
                exchange(&mut connect(server.address).await, &request).await.expect("an answer");
            });
        }
        return ExitCode::SUCCESS;
    }

    let mut ratios = Ratios::new();
    for (bytes, what, least) in [(SMALL, "3.5 KB", 0.90), (LARGE, "200 KB", 0.85)] {
        let time = Duration::from_millis(500);
        let ratio = runtime.block_on(throughput(servers, &body(bytes), 21, time));
        let what = format!("calls per second, {what}: endpoint / bare service");
        ratios.add(&what, ratio, Limit::AtLeast(least));
    }
    let memory = servers[0].peak_memory() / servers[1].peak_memory();
    ratios.add("peak resident memory: endpoint / bare service", memory, Limit::AtMost(1.5));
    ratios.add(
        "start to first answer: endpoint / bare service",
        start(&runtime, 51),
        Limit::AtMost(3.0),
    );
    for (bytes, what) in [(SMALL, "3.5 KB"), (LARGE, "200 KB")] {
        let ratio = in_process(&runtime, bytes);
        ratios.add(
            &format!("in process, {what}, signed: endpoint / dispatcher alone"),
            ratio,
            Limit::None,
        );
    }
    ratios.exit_code()
}
