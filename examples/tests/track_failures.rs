//! The example `track-failures`, run as its users run it, with servers that stand for Datadog and Slack.

use std::{
    collections::VecDeque,
    fs,
    io::Write,
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
};
use serde_json::{Value, json};

/// What must be nowhere in what the program says.
const KEY: &str = "0123456789abcdef-datadog";
const WEBHOOK_PATH: &str = "/services/T0001/B0001/XyZwebhookSecret";

/// What a run of the program left.
struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Run {
    fn of(command: &mut Command, stdin: &str) -> Self {
        let mut child = command.spawn().unwrap();
        // A program that reads no standard input may be gone by now.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        let output = child.wait_with_output().unwrap();
        let run = Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        };
        for secret in [KEY, WEBHOOK_PATH, "XyZwebhookSecret"] {
            assert!(!run.stdout.contains(secret), "{}", run.stdout);
            assert!(!run.stderr.contains(secret), "{}", run.stderr);
        }
        run
    }

    /// The lines that begin with this, blanks aside.
    fn lines(&self, start: &str) -> Vec<&str> {
        self.stdout.lines().map(str::trim).filter(|line| line.starts_with(start)).collect()
    }
}

/// The program, with nothing set up.
fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_track-failures"));
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for name in ["DD_URL", "DD_API_KEY", "SLACK_WEBHOOK_URL", "INNGEST_ENV"] {
        command.env_remove(name);
    }
    command
}

/// The program, set up to tell these of what it reads from standard input.
fn tell(datadog: &Fake, slack: &Fake) -> Command {
    let mut command = command(&["-v", "--env", "production", "-"]);
    command.env("DD_URL", &datadog.origin).env("DD_API_KEY", KEY);
    command.env("SLACK_WEBHOOK_URL", format!("{}{WEBHOOK_PATH}", slack.origin));
    command
}

/// One of the example's own events.
fn event(line: usize) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/events.jsonl");
    fs::read_to_string(path).unwrap().lines().nth(line - 1).unwrap().to_owned()
}

/// A server that stands for one of the two.
struct Fake {
    origin: String,
    state: Arc<FakeState>,
    _runtime: tokio::runtime::Runtime,
}

struct FakeState {
    /// The last one is given again and again.
    answers: Mutex<VecDeque<Answer>>,
    received: Mutex<Vec<(String, HeaderMap, Value)>>,
}

/// Status, `retry-after`, body.
type Answer = (u16, Option<&'static str>, &'static str);

impl Fake {
    fn new<const N: usize>(answers: [Answer; N]) -> Self {
        let answers = Mutex::new(answers.into());
        let state = Arc::new(FakeState { answers, received: Mutex::default() });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(answer).with_state(Arc::clone(&state));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, app).await
        });
        Self { origin, state, _runtime: runtime }
    }

    /// One that takes everything.
    fn kind() -> Self {
        Self::new([(200, None, "ok")])
    }

    fn received(&self) -> Vec<(String, HeaderMap, Value)> {
        self.state.received.lock().unwrap().clone()
    }
}

async fn answer(
    State(state): State<Arc<FakeState>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, HeaderMap, &'static str) {
    let body = serde_json::from_slice(&body).unwrap();
    state.received.lock().unwrap().push((uri.to_string(), headers, body));
    let mut answers = state.answers.lock().unwrap();
    let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().copied() };
    let (status, wait, body) = answer.unwrap();
    let wait = wait.map(|wait| ("retry-after".parse().unwrap(), wait.parse().unwrap()));
    (StatusCode::from_u16(status).unwrap(), wait.into_iter().collect(), body)
}

#[test]
fn with_nothing_set_up_it_shows_what_both_would_get() {
    let run = Run::of(&mut command(&[]), "");
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{}", run.stdout);

    assert_eq!(run.lines("to-datadog 1 attempt, sent, 202 Accepted").len(), 10);
    assert_eq!(run.lines("to-slack   1 attempt, sent, 200 OK").len(), 3);
    assert_eq!(run.lines("received by Datadog, POST /api/v1/events").len(), 10);
    assert_eq!(run.lines("received by Slack, POST the webhook").len(), 3);
    // Thirteen failures, of which Slack is not told of the cancelled one.
    assert_eq!(run.lines("to-datadog 0 attempts, rate-limited, not sent").len(), 3);
    assert_eq!(run.lines("to-slack   0 attempts, rate-limited, not sent").len(), 9);

    let expected = "
events.jsonl:3 shop-send-surveys
  to-datadog 1 attempt, sent, 202 Accepted
  to-slack   1 attempt, sent, 200 OK
  received by Datadog, POST /api/v1/events
    aggregation_key: shop-send-surveys
    alert_type: error
    source_type_name: inngest
    tags[0]: inngest_function:shop-send-surveys
    tags[1]: error:Error
    text:
      | Error: batch boom n=3
      | own code:
      |     at mk.batchEvents.maxSize [as userFnToRun] (/srv/app/fns.js:54:58)
      | libraries:
      |     at innerHandler (/srv/app/node_modules/inngest/components/execution/engine.cjs:1003:16)
      |     at process.processTicksAndRejections (node:internal/process/task_queues:95:5)
      |
      | http://localhost:8288/run?runID=01M82E84E48HXQ3JNHENXMN4AX
    title: shop-send-surveys failed: batch boom n=3
  received by Slack, POST the webhook
";
    assert!(run.stdout.contains(expected), "{}", run.stdout);
    assert_eq!(run.lines("title: depot-pick-parcel was cancelled").len(), 1);
}

#[test]
fn each_gets_the_report_and_the_link() {
    let (datadog, slack) = (Fake::kind(), Fake::kind());
    let event = event(7).replace("custom boom", "<!channel> & boom");
    let run = Run::of(&mut tell(&datadog, &slack), &event);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(run.lines("received by"), [""; 0]);

    let report = "\
CustomError: <!channel> & boom
caused by: TypeError: root cause
own code:
    at InngestExecutionEngine.userFnToRun (/srv/app/fns.js:23:74)
libraries:
    at innerHandler (/srv/app/node_modules/inngest/components/execution/engine.cjs:1003:16)
    at process.processTicksAndRejections (node:internal/process/task_queues:95:5)";
    let url = "https://app.inngest.com/env/production/runs/01M82E82J1NAZF0GDRQ5NV0TE5";

    let [(path, headers, body)] = &datadog.received()[..] else { panic!("not one request") };
    assert_eq!(path, "/api/v1/events");
    assert_eq!(headers["dd-api-key"], KEY);
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(
        *body,
        json!({
            "title": "shop-fulfil-order failed: <!channel> & boom",
            "text": format!("{report}\n\n{url}"),
            "alert_type": "error",
            "aggregation_key": "shop-fulfil-order",
            "source_type_name": "inngest",
            "tags": ["inngest_function:shop-fulfil-order", "error:CustomError"],
        })
    );

    let [(path, headers, body)] = &slack.received()[..] else { panic!("not one request") };
    assert_eq!(path, WEBHOOK_PATH);
    assert!(!headers.contains_key("dd-api-key"));
    let report = report.replace("<!channel> & boom", "&lt;!channel&gt; &amp; boom");
    let mrkdwn =
        |text: String| json!({ "type": "section", "text": { "type": "mrkdwn", "text": text } });
    assert_eq!(
        *body,
        json!({
            "text": "shop-fulfil-order failed: &lt;!channel&gt; &amp; boom",
            "blocks": [
                { "type": "header", "text": { "type": "plain_text", "text": "shop-fulfil-order failed" } },
                mrkdwn(format!("```{report}```")),
                mrkdwn(format!("<{url}|Look at the run>")),
            ],
        })
    );
}

#[test]
fn what_fails_for_now_is_tried_again() {
    let datadog = Fake::new([(500, None, "oops"), (200, None, "ok")]);
    let slack = Fake::new([(429, Some("1"), "rate_limited"), (200, None, "ok")]);
    let started = Instant::now();
    let run = Run::of(&mut tell(&datadog, &slack), &event(1));
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(run.lines("to-datadog"), ["to-datadog 2 attempts, sent, 200 OK"]);
    assert_eq!(run.lines("to-slack"), ["to-slack   2 attempts, sent, 200 OK"]);
    assert_eq!((datadog.received().len(), slack.received().len()), (2, 2));
    assert!(started.elapsed() >= Duration::from_secs(1), "it did not wait as it was told");
    for fault in ["Datadog answered 500", "Slack answered 429 Too Many Requests: `rate_limited`"] {
        assert!(run.stderr.contains(fault), "{}", run.stderr);
    }
}

#[test]
fn what_no_retry_mends_is_not_tried_again() {
    // The answer repeats the key.
    let datadog = Fake::new([(403, None, r#"{"errors":["Forbidden: 0123456789abcdef-datadog"]}"#)]);
    let slack = Fake::new([(404, None, "no_service")]);
    let run = Run::of(&mut tell(&datadog, &slack), &event(1));
    assert_eq!(run.code, Some(1), "{}", run.stdout);
    assert_eq!(
        run.lines("to-datadog"),
        ["to-datadog 1 attempt, failed: Datadog answered 403 Forbidden"]
    );
    assert_eq!(
        run.lines("to-slack"),
        ["to-slack   1 attempt, failed: Slack answered 404 Not Found: `no_service`"]
    );
    assert_eq!((datadog.received().len(), slack.received().len()), (1, 1));
}

#[test]
fn one_that_is_not_there_keeps_nothing_from_the_other() {
    let slack = Fake::kind();
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let run = Run::of(tell(&slack, &slack).env("DD_URL", format!("http://{gone}")), &event(1));
    assert_eq!(run.code, Some(1), "{}", run.stdout);
    let datadog = run.lines("to-datadog");
    assert!(
        datadog[0].starts_with("to-datadog 4 attempts, failed: can't reach Datadog: "),
        "{datadog:?}"
    );
    assert_eq!(run.lines("to-slack"), ["to-slack   1 attempt, sent, 200 OK"]);
}

#[test]
fn what_is_set_up_wrongly_is_said_without_the_secret() {
    let slack = Fake::kind();
    let fault = |change: &dyn Fn(&mut Command) -> &mut Command| {
        let mut command = tell(&slack, &slack);
        change(&mut command);
        let run = Run::of(&mut command, &event(1));
        assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{}", run.stderr);
        run.stderr
    };
    assert_eq!(
        fault(&|command| command.env_remove("DD_API_KEY")),
        "error: there is no key for `--datadog-url`; set `DD_API_KEY` to one of Datadog's API keys\n"
    );
    let insecure = format!("http://hooks.example{WEBHOOK_PATH}");
    assert_eq!(
        fault(&|command| command.env("SLACK_WEBHOOK_URL", &insecure)),
        "error: `SLACK_WEBHOOK_URL` is not safe to send a secret to; give a URL that begins with `https://`\n"
    );
    let broken = format!("https://hooks.example {WEBHOOK_PATH}");
    assert_eq!(
        fault(&|command| command.env("SLACK_WEBHOOK_URL", &broken)),
        "error: `SLACK_WEBHOOK_URL` is not a URL; copy it once more from where it was shown\n"
    );
    #[cfg(unix)]
    {
        use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
        let value = [KEY.as_bytes(), b"\xff"].concat();
        let fault = fault(&|command| command.env("DD_API_KEY", OsStr::from_bytes(&value)));
        assert_eq!(
            fault,
            "error: `DD_API_KEY` is not UTF-8; copy it once more from where it was shown\n"
        );
    }
    assert!(slack.received().is_empty());

    // A key that can't be sent is found when it would be.
    let run = Run::of(tell(&slack, &slack).env("DD_API_KEY", format!("{KEY}\u{1}")), &event(1));
    let fault = "to-datadog 1 attempt, failed: `DD_API_KEY` can't be sent in a header; copy it once more from Datadog";
    assert_eq!(run.lines("to-datadog"), [fault]);
}

#[test]
fn the_help_shows_no_value() {
    let slack = Fake::kind();
    let mut command = command(&["--help"]);
    command
        .env("DD_API_KEY", KEY)
        .env("SLACK_WEBHOOK_URL", format!("{}{WEBHOOK_PATH}", slack.origin));
    let run = Run::of(&mut command, "");
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    for text in ["[FILE]", "--datadog-url <ORIGIN>", "DD_API_KEY", "Exit status:"] {
        assert!(run.stdout.contains(text), "{text}: {}", run.stdout);
    }
}

#[test]
fn a_line_that_is_no_failure_is_reported_and_skipped() {
    let (datadog, slack) = (Fake::kind(), Fake::kind());
    let run = Run::of(&mut tell(&datadog, &slack), &format!("nonsense\n{}", event(1)));
    assert_eq!(run.code, Some(1), "{}", run.stdout);
    assert!(run.stderr.contains("stdin:1: not JSON: "), "{}", run.stderr);
    assert_eq!((datadog.received().len(), slack.received().len()), (1, 1));
}
