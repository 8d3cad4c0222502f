//! Runs that are killed between calls, and resumed by an endpoint that knows nothing of them.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use futures_util::future::BoxFuture;
use inngest_failure::{
    Dispatcher, Failure, HandlerError, State, Step, handlers, on_failure,
    serve::Endpoint,
    testing::{TestRun, Transcript, failure},
};
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::json;

use crate::{
    Seen, builder, exchange,
    program::{self, Program, programs},
};

/// As the testing kit calls it.
const APP: &str = "inngest-failure-testing";

/// Programs that may take any time, and no step of which fails.
fn some_programs(runs: usize) -> Vec<Program> {
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let strategy = programs(false);
    let mut program = || strategy.new_tree(&mut runner).unwrap().current();
    (0..runs).map(|_| program()).collect()
}

fn dispatcher(seen: &Seen) -> Dispatcher {
    builder().state(seen.clone()).register(handlers![program::program]).build().unwrap()
}

fn serve(dispatcher: Dispatcher) -> Endpoint {
    Endpoint::builder(dispatcher, APP).dev_server("http://127.0.0.1:9").build().unwrap()
}

#[track_caller]
fn finished(
    program: &Program,
    transcript: &Transcript,
    completed: impl IntoIterator<Item = String>,
) {
    let mut completions = BTreeMap::new();
    let expected = program.expected(&mut completions).unwrap();
    assert_eq!(transcript.assert_succeeded(), &json!(expected));
    let mut counts = BTreeMap::new();
    for id in completed {
        *counts.entry(id).or_default() += 1;
    }
    assert_eq!(counts, completions, "{transcript}");
}

async fn killed(runs: usize) {
    let mut random = StdRng::seed_from_u64(11);
    let mut kills = 0;
    for program in some_programs(runs) {
        let seen = Seen::default();
        let event = failure("shop-program").data(&program).build();
        let run =
            TestRun::new(&dispatcher(&seen), "shop-program-failure", event).seed(random.random());
        let mut endpoint = serve(dispatcher(&seen));
        // A run of a step has at least two calls.
        let mut left = random.random_range(1..4);
        let transcript = run
            .run_through(async |request| {
                if left == 0 {
                    endpoint = serve(dispatcher(&seen));
                    left = random.random_range(1..8);
                    kills += 1;
                }
                left -= 1;
                exchange(&endpoint, request).await
            })
            .await;
        finished(&program, &transcript, seen.take());
    }
    println!("{runs} runs, killed {kills} times, all finished, no completed step was repeated");
    assert!(kills > runs / 2, "{kills}");
}

#[tokio::test]
async fn runs_that_are_killed_between_calls_finish() {
    killed(10).await;
}

#[tokio::test]
#[ignore = "the full count"]
async fn runs_that_are_killed_between_calls_finish_1000() {
    killed(990).await;
    killed_in_processes(10).await;
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
            .env("STEPS_LOG", log)
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

/// The state of a handler in a process of its own.
#[derive(Clone)]
struct LogFile(std::sync::Arc<File>);

/// As `program`, but what completes is written to a file, which outlives the process.
#[on_failure(function = "program")]
async fn logged(
    failure: Failure<Program>,
    State(log): State<LogFile>,
    step: Step,
) -> Result<Vec<String>, HandlerError> {
    fn run<'a>(
        program: &'a Program,
        step: &'a Step,
        log: &'a LogFile,
    ) -> BoxFuture<'a, Result<Vec<String>, HandlerError>> {
        Box::pin(async move {
            let mut all = Vec::new();
            match program {
                Program::Step { id, .. } => {
                    let work = async || {
                        let mut log: &File = &log.0;
                        writeln!(log, "{id}")?;
                        log.sync_all()?;
                        Ok::<_, std::io::Error>(id.clone())
                    };
                    all.push(step.run(id, work).await?);
                }
                Program::Sleep { id } => step.sleep(id, std::time::Duration::from_secs(60)).await?,
                Program::Sequence(programs) => {
                    for program in programs {
                        all.extend(run(program, step, log).await?);
                    }
                }
                Program::Join(programs) => {
                    let runs = programs.iter().map(|program| run(program, step, log));
                    for result in futures_util::future::join_all(runs).await {
                        all.extend(result?);
                    }
                }
            }
            Ok(all)
        })
    }
    run(&failure.event.data, &step, &log).await
}

/// What a process of its own runs; nothing if it is run by hand.
#[tokio::test]
#[ignore = "only for the tests that start it"]
async fn child() {
    let Ok(path) = std::env::var("STEPS_LOG") else { return };
    let log = OpenOptions::new().append(true).open(path).unwrap();
    let dispatcher =
        builder().state(LogFile(log.into())).register(handlers![logged]).build().unwrap();
    let server = tests::http::Server::start(serve(dispatcher)).await;
    println!("\naddress {}", server.address);
    std::future::pending::<()>().await;
}

async fn killed_in_processes(runs: usize) {
    let mut random = StdRng::seed_from_u64(12);
    let log = std::env::temp_dir().join(format!("inngest-failure-steps-{}", std::process::id()));
    let path = log.to_str().unwrap();
    let mut starts = 0;
    for program in some_programs(runs) {
        File::create(&log).unwrap();
        let event = failure("shop-program").data(&program).build();
        let run = TestRun::new(&dispatcher(&Seen::default()), "shop-program-failure", event)
            .seed(random.random());
        let mut process = Process::start(path);
        let mut left = random.random_range(1..3);
        let transcript = run
            .run_through(async |request| {
                if left == 0 {
                    process = Process::start(path);
                    starts += 1;
                    left = random.random_range(1..4);
                }
                left -= 1;
                tests::http::send(process.address, request).await
            })
            .await;
        let completed = fs::read_to_string(&log).unwrap();
        finished(&program, &transcript, completed.lines().map(str::to_owned));
    }
    fs::remove_file(&log).unwrap();
    println!("{runs} runs, {starts} processes killed in the middle of them, all finished");
    assert!(starts >= runs / 2, "{starts}");
}

#[tokio::test]
async fn a_run_whose_processes_are_killed_finishes() {
    killed_in_processes(2).await;
}
