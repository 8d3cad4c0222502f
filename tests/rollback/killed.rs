//! A rollback whose processes are killed between calls, and resumed by others that know nothing of it.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use inngest_failure::{
    BoxFuture, Dispatcher, RunTrace, State, StepOutput, TraceError, TraceSource, handlers,
    on_failure,
    serve::Endpoint,
    testing::{TestRun, failure},
};
use rand::{SeedableRng, rngs::StdRng};

use crate::builder;

/// As many uses of one step as had completed.
const STEPS: usize = 200;

/// A file, which outlives the processes.
#[derive(Clone)]
struct LogFile(Arc<File>);

#[on_failure(function = "checkout", step = "item")]
async fn unpack(item: StepOutput<usize>, State(log): State<LogFile>) -> std::io::Result<()> {
    let mut log: &File = &log.0;
    writeln!(log, "{}", *item)?;
    log.sync_all()
}

/// The trace of the failed run: the program that tests it has no API.
struct Known;

impl TraceSource for Known {
    fn trace<'a>(&'a self, run_id: &'a str) -> BoxFuture<'a, Result<RunTrace, TraceError>> {
        let spans: Vec<_> = (0..STEPS)
            .map(|item| {
                let time = |at: usize| format!("2026-11-22T21:{:02}:{:02}.000Z", at / 60, at % 60);
                let id = if item == 0 { "item".to_owned() } else { format!("item:{item}") };
                let id = sha1_smol::Sha1::from(id).digest().to_string();
                serde_json::json!({
                    "name": "item", "stepId": id, "status": "COMPLETED", "output": { "data": item },
                    "startedAt": time(item), "endedAt": time(item + 1),
                })
            })
            .collect();
        let root = serde_json::json!({ "name": "Run", "status": "FAILED", "children": spans });
        let answer = serde_json::json!({ "data": { "runId": run_id, "rootSpan": root } });
        Box::pin(async move { answer.to_string().parse().map_err(TraceError::other) })
    }
}

fn dispatcher(path: &str) -> Dispatcher {
    let log = OpenOptions::new().append(true).open(path).unwrap();
    let builder = builder().state(LogFile(log.into())).trace_source(Known);
    builder.register(handlers![unpack]).build().unwrap()
}

/// An endpoint in a process of its own.
struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    fn start(log: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "killed::child", "--nocapture"])
            .env("ROLLBACK_LOG", log)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines.find_map(|line| line.unwrap().strip_prefix("address ")?.parse().ok());
        Self { child, address: address.expect("the child says where it listens") }
    }
}

/// With SIGKILL: it has no time for anything.
impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// What a process of its own runs; nothing if it is run by hand.
#[tokio::test]
#[ignore = "only for the tests that start it"]
async fn child() {
    let Ok(path) = std::env::var("ROLLBACK_LOG") else { return };
    let endpoint = Endpoint::builder(dispatcher(&path), "undos");
    let endpoint = endpoint.dev_server("http://127.0.0.1:9").build().unwrap();
    let server = tests::http::Server::start(endpoint).await;
    println!("\naddress {}", server.address);
    std::future::pending::<()>().await;
}

async fn killed(kills: usize) {
    let mut random = StdRng::seed_from_u64(13);
    let log = std::env::temp_dir().join(format!("inngest-failure-rollback-{}", std::process::id()));
    let path = log.to_str().unwrap();
    File::create(&log).unwrap();
    let run =
        TestRun::new(&dispatcher(path), "shop-checkout-rollback", failure("shop-checkout").build());
    let run = run.app_id("undos").path(tests::http::PATH);
    // A call for each step, one for the plan, and one to end with.
    let mut at: Vec<usize> = rand::seq::index::sample(&mut random, STEPS + 1, kills)
        .into_iter()
        .map(|i| i + 1)
        .collect();
    at.sort_unstable();
    let mut process = Process::start(path);
    let (mut calls, mut killed) = (0, 0);
    let transcript = run
        .run_through(async |request| {
            if at.get(killed) == Some(&calls) {
                process = Process::start(path);
                killed += 1;
            }
            calls += 1;
            tests::http::send(process.address, request).await
        })
        .await;
    transcript.assert_undone(["item"; STEPS]);
    let undone = fs::read_to_string(&log).unwrap();
    fs::remove_file(&log).unwrap();
    let undone: Vec<usize> = undone.lines().map(|line| line.parse().unwrap()).collect();
    let expected: Vec<usize> = (0..STEPS).rev().collect();
    assert_eq!(undone, expected);
    assert_eq!(killed, kills);
    println!(
        "{STEPS} steps undone, each once, by {} processes, {kills} of which were killed",
        kills + 1
    );
}

#[tokio::test]
async fn a_rollback_whose_processes_are_killed_finishes() {
    killed(2).await;
}

#[tokio::test]
#[ignore = "the full count"]
async fn a_rollback_whose_processes_are_killed_100_times_finishes() {
    killed(100).await;
}
