//! The example `observability`, scraped as Prometheus would, and its dashboard.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::Value;

/// A program that is killed when the test is over.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the endpoint gives after one round, and the spans of that round.
fn scrape() -> (String, String) {
    let child = Command::new(env!("CARGO_BIN_EXE_observability"))
        .args(["--port", "0", "--every", "3600"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut program = Program(child);
    // Spans are written all along: a pipe that nobody reads would fill up.
    let mut stdout = program.0.stdout.take().unwrap();
    let spans = std::thread::spawn(move || {
        let mut spans = String::new();
        stdout.read_to_string(&mut spans).unwrap();
        spans
    });
    let stderr = BufReader::new(program.0.stderr.take().unwrap());
    let url = stderr
        .lines()
        .map(Result::unwrap)
        .find_map(|line| line.strip_prefix("metrics at http://").map(str::to_owned))
        .expect("it says where the metrics are");

    let (address, path) = url.split_once('/').unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET /{path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    drop(program);
    (body.to_owned(), spans.join().unwrap())
}

/// The names of the series, and those of their labels.
fn series(metrics: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut series: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in metrics.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let name = &line[..line.find([' ', '{']).unwrap()];
        let labels = series.entry(name).or_default();
        if let Some((_, rest)) = line.split_once('{') {
            let (inside, _) = rest.split_once('}').unwrap();
            labels.extend(inside.split(',').map(|label| label.split_once('=').unwrap().0));
        }
    }
    series
}

/// The words of an expression that name a metric.
fn metrics_in(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("inngest_failure"))
}

#[test]
fn metrics_spans_and_dashboard_agree() {
    let (metrics, spans) = scrape();
    for line in [
        "inngest_failure_events_total{kind=\"failed\"} 12",
        "inngest_failure_events_total{kind=\"cancelled\"} 1",
        "inngest_failure_unhandled_events_total 2",
        "inngest_failure_handler_runs_total{handler_id=\"shop-checkout-failure\",outcome=\"succeeded\"} 5",
        "inngest_failure_handler_attempts_total{handler_id=\"shop-checkout-failure\",outcome=\"failed\"} 5",
        "inngest_failure_handler_attempts_total{handler_id=\"shop-checkout-failure\",outcome=\"succeeded\"} 5",
        "inngest_failure_handler_runs_total{handler_id=\"depot-pick-parcel-failure\",outcome=\"timed_out\"} 2",
        "inngest_failure_handler_runs_total{handler_id=\"shop-fulfil-order-failure\",outcome=\"payload\"} 2",
        "inngest_failure_handler_attempts_in_flight{handler_id=\"resend\"} 0",
        "inngest_failure_handler_attempt_duration_seconds_bucket{handler_id=\"resend\",le=\"0.25\"} 0",
        "inngest_failure_handler_attempt_duration_seconds_count{handler_id=\"resend\"} 2",
        "inngest_failure_dead_letters_total{outcome=\"kept\"} 3",
        "inngest_failure_dead_letters_total{outcome=\"logged\"} 1",
    ] {
        assert!(metrics.lines().any(|other| other == line), "{line}: {metrics}");
    }
    // The recorder was there before the dispatcher was built.
    assert!(
        metrics.contains("# HELP inngest_failure_dead_letters_total Dead letters, by what"),
        "{metrics}"
    );
    for text in ["Name         : dispatch", "Name         : handler", "service.name"] {
        assert!(spans.contains(text), "{text}: {spans}");
    }

    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("observability");
    let dashboard = fs::read(folder.join("dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_slice(&dashboard).unwrap();
    let series = series(&metrics);
    let mut shown = BTreeSet::new();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() >= 8);
    let readme = fs::read_to_string(folder.join("README.md")).unwrap();
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(readme.contains(&format!("| {title} |")), "README.md does not tell of `{title}`");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            let before = shown.len();
            for metric in metrics_in(expression) {
                let labels = series.get(metric);
                let labels = labels.unwrap_or_else(|| panic!("{title}: there is no `{metric}`"));
                shown.insert(metric);
                // What it sums by and filters by is there, too.
                for label in ["handler_id", "outcome", "kind", "le"] {
                    let words =
                        || expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                    assert!(
                        !words().any(|word| word == label) || labels.contains(label),
                        "{title}: `{metric}` has no `{label}`"
                    );
                }
            }
            assert!(shown.len() > before || metrics_in(expression).next().is_some(), "{title}");
        }
    }
    // The sum and the count of a histogram need not be shown.
    let families: BTreeSet<&str> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    for family in families {
        assert!(shown.iter().any(|metric| metric.starts_with(family)), "no panel shows `{family}`");
    }
}
