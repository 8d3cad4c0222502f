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

#[test]
fn serve_runs_the_handlers_that_it_is_called_for() {
    let server = Server::start(SERVE, &["--port", "0"]);
    let unknown = recorded_call();
    let mut known: Value = serde_json::from_str(&unknown.replace("ord_1", "o-1001")).unwrap();

    // The provider is busy at first, and so is the mail service. Each call runs one step that is not remembered.
    let undo = "shop-failures-shop-checkout-failure";
    let busy = server.call(undo, &known.to_string());
    assert_eq!((busy.status, busy.header("retry-after")), (206, Some("1")), "{}", busy.body);
    assert_eq!(busy.header("x-inngest-no-retry"), Some("false"));
    assert_eq!(busy.operation(), ("StepError".to_owned(), "refund".to_owned()));
    let outcomes = [
        ("StepRun", "refund", json!("refunded 49.90 EUR")),
        ("StepRun", "restock", json!(3)),
        ("StepError", "apologise", Value::Null),
        ("StepRun", "apologise", json!("sent")),
    ];
    for (op, step, data) in outcomes {
        let answer = server.call(undo, &known.to_string());
        assert_eq!(answer.status, 206, "{}", answer.body);
        assert_eq!(answer.operation(), (op.to_owned(), step.to_owned()), "{}", answer.body);
        let operation = &answer.json()[0];
        assert_eq!(operation["data"], data);
        if op == "StepRun" {
            let id = operation["id"].as_str().unwrap();
            known["steps"][id] = json!({ "data": data });
        }
    }
    let answer = server.call(undo, &known.to_string());
    let undone = json!("refunded 49.90 EUR, restocked 3, mail sent");
    assert_eq!((answer.status, answer.json()), (200, undone));

    let answer = server.call("shop-failures-count", &unknown);
    assert_eq!((answer.status, answer.json()), (200, Value::Null));

    let answer = server.call(undo, &unknown);
    assert_eq!((answer.status, answer.header("x-inngest-no-retry")), (206, Some("true")));
    assert_eq!(answer.operation(), ("StepFailed".to_owned(), "refund".to_owned()));
    let message = "there is no order `ord_1` in the books; enter it first";
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
