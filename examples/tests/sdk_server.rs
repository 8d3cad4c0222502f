//! The example that serves functions of the `inngest` crate with their failure handlers, run as its users run it and
//! called as Inngest calls it.

mod server;

use std::{
    io::{BufReader, Write},
    net::TcpListener,
    sync::mpsc,
    thread,
    time::SystemTime,
};

use inngest_failure::testing::failure;
use openssl::{hash::MessageDigest, pkey::PKey, sign::Signer};
use serde_json::{Value, json};

use self::server::{PATIENCE, Response, Server, command, read_request};

const SDK_SERVER: &str = env!("CARGO_BIN_EXE_sdk-server");

const KEY: &str = "signkey-test-12345678";

/// The server in dev mode.
fn start() -> Server {
    Server::start(SDK_SERVER, &["--port", "0"])
}

/// The server in cloud mode, with a key, and the API here.
fn start_in_cloud_mode(api: &str) -> Server {
    let mut command = command(SDK_SERVER, &["--port", "0"]);
    command.env("INNGEST_SIGNING_KEY", KEY).env("INNGEST_API_ORIGIN", api);
    // Where there is a proxy, the SDK's client would send everything to it.
    command.env("NO_PROXY", "127.0.0.1");
    Server::spawn(&mut command)
}

fn order(order_id: &str, cents: u64) -> Value {
    json!({
        "order_id": order_id, "cents": cents, "units": 3, "country": "MQ", "email": "ada@mail.invalid",
    })
}

/// The event that starts a function of the shop.
fn event(name: &str, data: &Value) -> Value {
    let id = "01M82E7PPPG8YZKGBE5DGYPG24";
    json!({ "id": id, "name": name, "data": data, "ts": 1_795_379_128_134_u64 })
}

/// The event that Inngest sends when a function has failed for good.
fn failed(function_id: &str, data: &Value) -> Value {
    let run_id = format!("run-of-{}", data["order_id"].as_str().unwrap());
    let event = failure(function_id).run_id(run_id).error("no retry error").data(data).build();
    serde_json::to_value(event).unwrap()
}

/// The body of a call with these remembered steps.
fn call(event: &Value, steps: &Value) -> String {
    let body = json!({
        "ctx": {
            "attempt": 0, "disable_immediate_execution": false, "env": "", "fn_id": "", "max_attempts": 4,
            "run_id": "01M82EYT4HM8CFGAGFFEN707R8", "stack": { "current": 0, "stack": [] }, "step_id": "step",
            "use_api": false,
        },
        "event": event, "events": [event], "steps": steps, "use_api": false, "version": 1,
    });
    body.to_string()
}

/// Calls a function, remembers its step and calls again, until it returns or fails: the steps that it had, and its last
/// answer.
fn run(server: &Server, function: &str, event: &Value) -> (Vec<String>, Response) {
    let mut memos = json!({});
    let mut steps = Vec::new();
    loop {
        let answer = server.call(function, &call(event, &memos));
        if answer.status != 206 {
            return (steps, answer);
        }
        let (op, step) = answer.operation();
        assert_eq!(op, "StepRun", "{}", answer.body);
        let operation = &answer.json()[0];
        let id = operation["id"].as_str().unwrap();
        assert!(memos.get(id).is_none(), "`{step}` ran twice");
        memos[id] = json!({ "data": operation["data"] });
        steps.push(step);
    }
}

#[test]
fn it_says_what_it_is() {
    let answer = start().get();
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.header("x-inngest-sdk"), Some("rust:0.1.1"), "{}", answer.head);
    assert_eq!(answer.json()["function_count"], 5, "{}", answer.body);
}

#[test]
fn a_checkout_that_fails_for_good_is_undone() {
    let server = start();
    let order = order("o-1", 4990);
    let (steps, answer) = run(&server, "shop-checkout", &event("shop/order.placed", &order));
    assert_eq!(steps, ["reserve-stock", "charge-card"]);
    assert_eq!((answer.status, answer.header("x-inngest-no-retry")), (500, Some("true")));

    // The event may come twice. What was given back stays so, and is not given back again.
    for undone in ["refunded 49.90 EUR, restocked 3", "refunded 49.90 EUR, restocked 0"] {
        let event = failed("shop-checkout", &order);
        let (steps, answer) = run(&server, "shop-checkout-failure", &event);
        assert_eq!(steps, ["refund", "restock"]);
        assert_eq!((answer.status, answer.json()), (200, json!(undone)), "{}", answer.head);
    }
}

#[test]
fn a_checkout_is_undone_as_far_as_it_got() {
    let server = start();
    let order = order("o-1", 100_001);
    let (steps, answer) = run(&server, "shop-checkout", &event("shop/order.placed", &order));
    assert_eq!((steps, answer.status), (vec!["reserve-stock".to_owned()], 500));
    assert_eq!(answer.header("x-inngest-no-retry"), None, "{}", answer.body);
    assert_eq!(answer.json()["message"], "the card was declined");

    let (_, answer) = run(&server, "shop-checkout-failure", &failed("shop-checkout", &order));
    let undone = json!("refunded 0.00 EUR, restocked 3");
    assert_eq!((answer.status, answer.json()), (200, undone));
}

#[test]
fn an_invoice_that_nobody_takes_is_void() {
    let server = start();
    let order = order("o-1", 4990);
    let (steps, answer) = run(&server, "shop-send-invoice", &event("shop/order.shipped", &order));
    assert_eq!(steps, ["take-number"]);
    assert_eq!((answer.status, answer.header("retry-after")), (500, Some("5")), "{}", answer.body);

    let failed = failed("shop-send-invoice", &order);
    let (steps, answer) = run(&server, "shop-send-invoice-failure", &failed);
    assert_eq!(steps, ["void", "tell-accounts"]);
    assert_eq!((answer.status, answer.json()), (200, json!("voided 1")));
    server.wait_for_log("to the accounts: invoice 1 is void: ");
}

#[test]
fn other_failures_are_logged() {
    let server = start();
    let failed = failed("depot-pick-parcel", &json!({ "order_id": "o-1", "shelf": 7 }));
    let answer = server.call("shop-log", &call(&failed, &json!({})));
    assert_eq!((answer.status, answer.json()), (200, Value::Null), "{}", answer.head);
    server.wait_for_log("function_id=\"depot-pick-parcel\"");
}

#[test]
fn an_event_that_is_no_order_is_not_tried_again() {
    let event = event("shop/order.placed", &json!({ "order_id": 1 }));
    let answer = start().call("shop-checkout", &call(&event, &json!({})));
    assert_eq!((answer.status, answer.header("x-inngest-no-retry")), (400, Some("true")));
    assert!(answer.body.contains("at `data.order_id`"), "{}", answer.body);
}

#[test]
fn a_sync_registers_the_functions_and_their_handlers() {
    let api = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut server = start_in_cloud_mode(&format!("http://{}", api.local_addr().unwrap()));
    let (sender, registered) = mpsc::channel();
    thread::spawn(move || sender.send(play_api(&api)));
    // The only name that the SDK makes a URL of.
    server.authority = server.authority.replace("127.0.0.1", "localhost");
    let answer = server.send("PUT", "", "", "");
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.json()["OutOfBand"]["modified"], true, "{}", answer.body);

    let (head, app) = registered.recv_timeout(PATIENCE).expect("nothing was registered");
    assert!(head.starts_with("POST /fn/register "), "{head}");
    assert!(head.to_ascii_lowercase().contains("\nauthorization: bearer signkey-test-"), "{head}");
    assert_eq!(app["appName"], "shop");
    let url = format!("http://{}/api/inngest", server.authority);
    assert_eq!(app["url"], url);

    let functions = app["functions"].as_array().unwrap();
    let mut triggers: Vec<(&str, &str, Option<&str>)> = functions
        .iter()
        .map(|function| {
            let id = function["id"].as_str().unwrap();
            let runtime = &function["steps"]["step"]["runtime"]["url"];
            assert_eq!(*runtime, format!("{url}?fnId={id}&step=step"));
            let trigger = &function["triggers"][0];
            (id, trigger["event"].as_str().unwrap(), trigger["expression"].as_str())
        })
        .collect();
    triggers.sort_unstable();
    let checkout = "event.data.function_id == 'shop-checkout'";
    let invoice = "event.data.function_id == 'shop-send-invoice'";
    let rest = format!("!({checkout}) && !({invoice})");
    let failed = "inngest/function.failed";
    let expected = [
        ("shop-checkout", "shop/order.placed", None),
        ("shop-checkout-failure", failed, Some(checkout)),
        ("shop-log", failed, Some(rest.as_str())),
        ("shop-send-invoice", "shop/order.shipped", None),
        ("shop-send-invoice-failure", failed, Some(invoice)),
    ];
    assert_eq!(triggers, expected);
}

/// Inngest's API, for one request: its head, and its body.
fn play_api(api: &TcpListener) -> (String, Value) {
    let (stream, _) = api.accept().unwrap();
    let mut requests = BufReader::new(stream);
    let (head, body) = read_request(&mut requests).unwrap();
    let answer = r#"{"ok":true,"modified":true}"#;
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{answer}", answer.len());
    requests.get_mut().write_all(answer.as_bytes()).unwrap();
    (head, serde_json::from_slice(&body).unwrap())
}

/// The header with the signature that Inngest would give this body now.
fn signature(key: &str, body: &str) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let key = PKey::hmac(key.rsplit('-').next().unwrap().as_bytes()).unwrap();
    let mut signer = Signer::new(MessageDigest::sha256(), &key).unwrap();
    let signature = signer.sign_oneshot_to_vec(format!("{body}{now}").as_bytes()).unwrap();
    let signature: String = signature.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("x-inngest-signature: t={now}&s={signature}\r\n")
}

#[test]
fn in_cloud_mode_only_signed_calls_run() {
    let server = start_in_cloud_mode("http://127.0.0.1:1");
    let query = "?fnId=shop-checkout&stepId=step";
    let body = call(&event("shop/order.placed", &order("o-1", 4990)), &json!({}));
    for (what, header) in [
        ("unsigned", String::new()),
        ("signed by a stranger", signature("signkey-test-87654321", &body)),
        ("signed for another body", signature(KEY, "{}")),
    ] {
        let answer = server.send("POST", query, &header, &body);
        assert_eq!(answer.status, 401, "{what}: {}", answer.body);
        assert_eq!(answer.json()["name"], "Unauthorized", "{what}");
    }
    // The first one is larger than what axum takes by default.
    for body in [format!("{body}{}", " ".repeat(3_000_000)), body] {
        let answer = server.send("POST", query, &signature(KEY, &body), &body);
        assert_eq!(answer.status, 206, "{}", answer.body);
        assert_eq!(answer.operation(), ("StepRun".to_owned(), "reserve-stock".to_owned()));
    }
}

#[test]
fn it_does_not_start_without_a_key() {
    let output = command(SDK_SERVER, &["--port", "0"]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]), "{stderr}");
    assert!(stderr.starts_with("error: 1 problem "), "{stderr}");
    for way_out in ["set `INNGEST_SIGNING_KEY` to", "`INNGEST_DEV=1`"] {
        assert!(stderr.contains(way_out), "{way_out}: {stderr}");
    }
}

#[test]
fn it_says_that_a_port_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let mut command = command(SDK_SERVER, &[]);
    let output = command.env("PORT", &port).env("INNGEST_DEV", "1").output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains(&format!("error: cannot listen on port {port}: ")), "{stderr}");
    assert!(stderr.ends_with("; choose another one with `--port`\n"), "{stderr}");
}

#[test]
fn it_shows_how_to_start_it() {
    let output = command(SDK_SERVER, &["--help"]).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    for text in [
        "INNGEST_DEV=1 cargo run -p examples --features sdk --bin sdk-server\n",
        "npx inngest-cli@latest dev -u http://localhost:3000/api/inngest",
        "Exit status:",
    ] {
        assert!(stdout.contains(text), "{text}: {stdout}");
    }
}

#[cfg(unix)]
#[test]
fn it_answers_the_calls_that_had_begun_when_it_was_told_to_stop() {
    use std::io::Read;

    let server = start();
    let body = call(&event("shop/order.placed", &order("o-1", 4990)), &json!({}));
    let headers = format!("content-length: {}\r\nexpect: 100-continue\r\n", body.len());
    let head = server.head("POST", "?fnId=shop-checkout&stepId=step", &headers);
    let mut stream = server.connect();
    stream.write_all(head.as_bytes()).unwrap();
    // With this the server asks for the body: the call has begun.
    let expected = "HTTP/1.1 100 Continue\r\n\r\n";
    let mut interim = vec![0; expected.len()];
    stream.read_exact(&mut interim).unwrap();
    assert_eq!(interim, expected.as_bytes());

    server.terminate();
    server.wait_for_log("stopping");
    stream.write_all(body.as_bytes()).unwrap();
    let answer = Response::read(stream);
    assert_eq!(answer.status, 206, "{}", answer.body);
    assert_eq!(server.exit_code(), Some(0));
}
