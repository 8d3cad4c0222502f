//! `serve`.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Request;
use rustix::process::Signal;
use tests::http::{PATH, call, json, send};

use crate::{Ended, Place, Running, failure, until};

fn dev() -> Place {
    Place::new().env("INNGEST_DEV", "http://127.0.0.1:9")
}

/// A server on a port that is free, where it listens, and its id.
fn start(place: &Place, args: &[&str]) -> (Running, SocketAddr, String) {
    let all: Vec<&str> =
        ["serve", "--listen", "127.0.0.1:0"].into_iter().chain(args.iter().copied()).collect();
    let mut running = place.start(&all, Stdio::null());
    let mut stderr = BufReader::new(running.0.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    running.0.stderr = Some(stderr.into_inner());
    let (app, origin) =
        line.trim_end().strip_prefix("app `").unwrap().split_once("` at http://").unwrap();
    (running, origin.parse().unwrap(), app.to_owned())
}

fn called(function: &str) -> Request<Bytes> {
    let event: serde_json::Value = serde_json::from_str(&failure("shop-slow", 0)).unwrap();
    let body = serde_json::json!({
        "version": 1, "use_api": false, "event": event, "events": [event], "steps": {},
        "ctx": { "run_id": "run", "attempt": 0, "max_attempts": 1, "stack": { "stack": [], "current": 0 } },
    });
    call(function, body.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_answers_and_ends_when_the_calls_have() {
    let place = dev();
    let (running, address, app) = start(&place, &[]);
    assert_eq!(app, "shop-failures");
    let introspection = Request::get(PATH).body(Bytes::new()).unwrap();
    let answer = send(address, introspection).await;
    assert_eq!((answer.status().as_u16(), &json(&answer)["function_count"]), (200, &5.into()));

    let calling = tokio::spawn(send(address, called("shop-failures-shop-slow-failure")));
    until("begun", || place.read("effects").contains("slow-began r0"));
    running.signal(Signal::TERM);
    // Nobody else is let in.
    until("closed", || TcpStream::connect(address).is_err());
    let answer = calling.await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.body().as_ref()), (200, &b"null"[..]));
    assert_eq!(running.end().well(), "");
    assert_eq!(place.effects_once(), ["slow-began r0", "slow-ended r0"]);
}

#[test]
fn calls_that_take_too_long_to_end_are_told() {
    let place = dev();
    let (running, address, app) = start(&place, &["--app", "mine", "--grace", "200ms"]);
    assert_eq!(app, "mine");
    // Of which the answer never comes.
    let (head, body) = called("mine-shop-slow-failure").into_parts();
    let mut calling = TcpStream::connect(address).unwrap();
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\n\r\n",
        head.uri,
        body.len()
    );
    calling.write_all(&[head.as_bytes(), &body].concat()).unwrap();
    until("begun", || place.read("effects").contains("slow-began r0"));
    running.signal(Signal::INT);
    let began = Instant::now();
    let ended: Ended = running.end();
    assert_eq!(ended.failed(), "some calls had not ended after 200ms\n");
    assert!(began.elapsed() < Duration::from_millis(1200), "{:?}", began.elapsed());
    assert_eq!(place.effects_once(), ["slow-began r0"]);
}

#[test]
fn an_idle_server_ends_at_once() {
    let place = dev();
    let (running, address, _) = start(&place, &[]);
    // A connection on which nothing is asked.
    let _idle = TcpStream::connect(address).unwrap();
    thread::sleep(Duration::from_millis(100));
    running.signal(Signal::TERM);
    let began = Instant::now();
    assert_eq!(running.end().well(), "");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn what_is_missing_is_told_before_it_listens() {
    let ended = Place::new().run(&["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(
        ended.refused(),
        "error: 1 problem with the failure handlers:\n  - there is no signing key, so that calls could not be told from \
         forged ones; set `INNGEST_SIGNING_KEY` to the key that the dashboard shows, or choose dev mode with \
         `INNGEST_DEV=1` where no one else can reach the endpoint\n"
    );
    let ended = dev().run(&["serve", "--app", "shop"]);
    assert!(ended.refused().contains("`shop`"), "{ended:?}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = dev().run(&["serve", "--listen", &address]);
    assert_eq!(
        ended.refused(),
        format!(
            "error: can't listen on {address}: Address already in use (os error 98); give another address with `--listen`\n"
        )
    );
}
