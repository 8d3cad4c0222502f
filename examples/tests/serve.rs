//! The examples that serve handlers, run as their users run them and called as Inngest calls them.

mod server;

use std::{
    fs,
    io::{BufReader, Write},
    net::TcpListener,
    path::Path,
    sync::mpsc,
    thread,
};

use serde_json::{Value, json};

use self::server::{PATIENCE, Response, Running, Server, command, read_request};

const SERVE: &str = env!("CARGO_BIN_EXE_serve");
const SERVE_HYPER: &str = env!("CARGO_BIN_EXE_serve-hyper");
const SERVE_LAMBDA: &str = env!("CARGO_BIN_EXE_serve-lambda");

/// A file of the example `shop`'s own, by its path below `data/`.
fn shipped(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(path)).unwrap()
}

/// Answers every request as Inngest's API answers one for the trace of a run, and tells what it was asked for.
fn play_api(trace: String) -> (String, mpsc::Receiver<String>) {
    let api = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = format!("http://{}", api.local_addr().unwrap());
    let (sender, asked) = mpsc::channel();
    thread::spawn(move || {
        while let Ok((stream, _)) = api.accept() {
            let mut requests = BufReader::new(stream);
            while let Some((head, _)) = read_request(&mut requests) {
                let length = trace.len();
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{trace}");
                requests.get_mut().write_all(answer.as_bytes()).unwrap();
                if sender.send(head).is_err() {
                    return;
                }
            }
        }
    });
    (origin, asked)
}

/// The body of a call that a server has made for the failure of a checkout.
fn recorded_call() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fixtures/signed/call-failure-handler.json");
    let recording: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    recording["body"].as_str().unwrap().to_owned()
}

#[test]
fn serve_says_what_it_is() {
    let server = Server::start(SERVE, &["--port", "0"]);
    let answer = server.get();
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(
        answer.header("x-inngest-sdk").unwrap().starts_with("inngest-failure:v"),
        "{}",
        answer.head
    );
    assert_eq!(answer.json()["function_count"], 6, "{}", answer.body);
    assert_eq!(answer.json()["mode"], "dev", "{}", answer.body);
}

/// Calls a function, remembers what it says of steps, and calls again, until it has come to its end: each answer's
/// operation with its step and data, and the last answer.
fn run(
    server: &Server,
    function: &str,
    mut call: Value,
) -> (Vec<(String, String, Value)>, Response) {
    let mut operations = Vec::new();
    loop {
        let answer = server.call(function, &call.to_string());
        if answer.status != 206 {
            return (operations, answer);
        }
        let (op, step) = answer.operation();
        let operation = &answer.json()[0];
        let data = operation["data"].clone();
        if op == "StepRun" {
            call["steps"][operation["id"].as_str().unwrap()] = json!({ "data": data });
        }
        operations.push((op, step, data));
        assert!(operations.len() < 20, "{operations:?}");
    }
}

#[test]
fn serve_undoes_what_a_failed_checkout_had_completed() {
    let event: Value =
        serde_json::from_str(shipped("events.jsonl").lines().next().unwrap()).unwrap();
    let run_id = event["data"]["run_id"].as_str().unwrap();
    let (origin, asked) = play_api(shipped(&format!("traces/{run_id}.json")));
    let mut command = command(SERVE, &["--port", "0"]);
    let server = Server::spawn(command.env("INNGEST_DEV", origin));

    let mut call: Value = serde_json::from_str(&recorded_call()).unwrap();
    call["event"] = event.clone();
    call["events"] = json!([event]);
    let (operations, answer) = run(&server, "shop-failures-shop-checkout-rollback", call);

    // The payment provider is busy at first.
    let (plan, undone) = operations.split_first().unwrap();
    assert_eq!((plan.0.as_str(), plan.1.as_str()), ("StepRun", "plan"));
    let operation = |op: &str, step: &str, data: Value| (op.to_owned(), step.to_owned(), data);
    let expected = [
        operation("StepError", "undo/charge-card", Value::Null),
        operation("StepRun", "undo/charge-card", json!("refunded 49.90 EUR")),
        operation("StepRun", "undo/reserve-stock", json!("restocked 3")),
    ];
    assert_eq!(undone, expected);
    let report = json!({
        "undone": [
            { "step": "charge-card", "result": "refunded 49.90 EUR" },
            { "step": "reserve-stock", "result": "restocked 3" },
        ],
        "not_completed": [],
    });
    assert_eq!((answer.status, answer.json()), (200, report));

    let asked: Vec<String> = asked.try_iter().collect();
    assert_eq!(asked.len(), 1, "{asked:?}");
    let expected = format!("GET /api/v2/runs/{run_id}/trace?includeOutput=true ");
    assert!(asked[0].starts_with(&expected), "{}", asked[0]);
}

#[test]
fn serve_runs_the_handlers_that_it_is_called_for() {
    let server = Server::start(SERVE, &["--port", "0"]);
    let events = shipped("events.jsonl");
    let event = events.lines().nth(2).unwrap();
    let mut call: Value = serde_json::from_str(&recorded_call()).unwrap();
    call["event"] = serde_json::from_str(event).unwrap();

    // The second mail fails at first.
    let (operations, answer) = run(&server, "shop-failures-resend", call.clone());
    let expected = [
        ("StepRun", json!("sent")),
        ("StepError", Value::Null),
        ("StepRun", json!("sent")),
        ("StepRun", json!("sent")),
    ];
    let expected = expected.map(|(op, data)| (op.to_owned(), "resend".to_owned(), data));
    assert_eq!(operations, expected);
    assert_eq!((answer.status, answer.json()), (200, json!("sent 3 of 3")));

    let answer = server.call("shop-failures-count", &call.to_string());
    assert_eq!((answer.status, answer.json()), (200, Value::Null));

    let unknown = call.to_string().replace("o-1007", "o-9999");
    let answer = server.call("shop-failures-resend", &unknown);
    assert_eq!((answer.status, answer.header("x-inngest-no-retry")), (206, Some("true")));
    assert_eq!(answer.operation(), ("StepFailed".to_owned(), "resend".to_owned()));
    let message = "there is no order `o-9999` in the books; enter it first";
    assert_eq!(answer.json()[0]["error"]["message"], message);
}

#[test]
fn serve_does_not_start_without_a_key() {
    let output = command(SERVE, &["--port", "0"]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]), "{stderr}");
    assert!(stderr.starts_with("error: 1 problem "), "{stderr}");
    for way_out in ["set `INNGEST_SIGNING_KEY` to", "`INNGEST_DEV=1`"] {
        assert!(stderr.contains(way_out), "{way_out}: {stderr}");
    }
}

#[test]
fn serve_says_that_a_port_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = command(SERVE, &[]).env("PORT", &port).env("INNGEST_DEV", "1").output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains(&format!("error: cannot listen on port {port}: ")), "{stderr}");
    assert!(stderr.ends_with("; choose another one with `--port`\n"), "{stderr}");
}

#[test]
fn serve_shows_how_to_start_it() {
    let output = command(SERVE, &["--help"]).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    for text in [
        "INNGEST_DEV=1 cargo run -p examples --bin serve\n",
        "npx inngest-cli@latest dev -u http://localhost:3000/api/failures",
        "Exit status:",
    ] {
        assert!(stdout.contains(text), "{text}: {stdout}");
    }
}

#[cfg(unix)]
#[test]
fn serve_ends_at_sigterm() {
    let server = Server::start(SERVE, &["--port", "0"]);
    server.terminate();
    assert_eq!(server.exit_code(), Some(0));
}

#[cfg(unix)]
#[test]
fn serve_answers_the_calls_that_had_begun_when_it_was_told_to_stop() {
    use std::io::Read;

    let server = Server::start(SERVE, &["--port", "0"]);
    let body = recorded_call();
    let headers = format!("content-length: {}\r\nexpect: 100-continue\r\n", body.len());
    let head = server.head("POST", "?fnId=shop-failures-count&stepId=step", &headers);
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
    assert_eq!((answer.status, answer.json()), (200, Value::Null), "{}", answer.head);
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn serve_hyper_logs_the_failures_that_it_is_called_for() {
    let server = Server::start(SERVE_HYPER, &["0"]);
    assert_eq!(server.get().json()["function_count"], 1);
    let answer = server.call("failures-log", &recorded_call());
    assert_eq!((answer.status, answer.json()), (200, Value::Null), "{}", answer.head);
    assert!(answer.header("x-inngest-sdk").is_some(), "{}", answer.head);
    assert_eq!(server.call("failures-other", &recorded_call()).status, 500);
    server.wait_for_log("card declined");
}

/// Hands one event to the program as Lambda does, and returns its answer.
fn invoke(event: &Value) -> Value {
    let api = TcpListener::bind("127.0.0.1:0").unwrap();
    let child = command(SERVE_LAMBDA, &[])
        .env("INNGEST_DEV", "1")
        .env("AWS_LAMBDA_RUNTIME_API", api.local_addr().unwrap().to_string())
        .env("AWS_LAMBDA_FUNCTION_NAME", "failures")
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
        .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
        .spawn()
        .unwrap();
    let _running = Running { child };
    let (sender, answer) = mpsc::channel();
    let event = event.to_string();
    thread::spawn(move || sender.send(play_lambda(&api, &event)));
    let answer = answer.recv_timeout(PATIENCE).expect("no answer");
    serde_json::from_slice(&answer).unwrap()
}

/// Lambda's runtime API, until it has the answer to the event.
fn play_lambda(api: &TcpListener, event: &str) -> Vec<u8> {
    // The program may open a connection for each request, or keep one.
    loop {
        let (stream, _) = api.accept().unwrap();
        let mut requests = BufReader::new(stream);
        while let Some((head, body)) = read_request(&mut requests) {
            if head.starts_with("GET /2018-06-01/runtime/invocation/next ") {
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nlambda-runtime-aws-request-id: 1\r\nlambda-runtime-deadline-ms: \
                     4102444800000\r\ncontent-length: {}\r\n\r\n{event}",
                    event.len(),
                );
                requests.get_mut().write_all(answer.as_bytes()).unwrap();
            } else if head.starts_with("POST /2018-06-01/runtime/invocation/1/response ") {
                return body;
            } else {
                panic!("{head}: {}", String::from_utf8_lossy(&body));
            }
        }
    }
}

/// What Lambda makes of a request to a function URL.
fn url_event(method: &str, query: &str, body: Option<&str>) -> Value {
    json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": "/",
        "rawQueryString": query,
        "headers": { "content-type": "application/json", "host": "abcdefgh.lambda-url.eu-central-1.on.aws" },
        "requestContext": {
            "accountId": "anonymous",
            "apiId": "abcdefgh",
            "domainName": "abcdefgh.lambda-url.eu-central-1.on.aws",
            "domainPrefix": "abcdefgh",
            "http": {
                "method": method,
                "path": "/",
                "protocol": "HTTP/1.1",
                "sourceIp": "127.0.0.1",
                "userAgent": "Inngest",
            },
            "requestId": "1",
            "routeKey": "$default",
            "stage": "$default",
            "time": "22/Nov/2026:20:25:28 +0000",
            "timeEpoch": 1_795_379_128_000_u64,
        },
        "body": body,
        "isBase64Encoded": false,
    })
}

#[test]
fn serve_lambda_answers_what_a_function_url_passes_on() {
    let answer = invoke(&url_event("GET", "", None));
    assert_eq!(answer["statusCode"], 200, "{answer}");
    assert!(answer["headers"]["x-inngest-sdk"].is_string(), "{answer}");
    let introspection: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
    assert_eq!(introspection["function_count"], 1);

    let call = url_event("POST", "fnId=failures-log&stepId=step", Some(&recorded_call()));
    let answer = invoke(&call);
    assert_eq!((&answer["statusCode"], &answer["body"]), (&json!(200), &json!("null")), "{answer}");
}
