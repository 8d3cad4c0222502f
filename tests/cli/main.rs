//! The command line for operators, as a program of its own: `tests/src/bin/operator.rs`.
//!
//! The full counts take some minutes:
//!
//! ```text
//! cargo test --release -p tests --test cli -- --ignored --nocapture --test-threads 1
//! ```

#![cfg(unix)]

mod backfill;
mod commands;
mod dispatch;
mod full_disk;
mod functions;
mod killed;
mod large;
mod letters;
mod serve;
mod stopped;

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Where the ledger is, unless a test says otherwise.
const LEDGER: &str = "inngest-failure-ledger.db";

/// A folder in which the operator works.
struct Place {
    folder: TempDir,
    env: Vec<(String, String)>,
}

/// What a command left.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Place {
    fn new() -> Self {
        let mut place = Self { folder: tempfile::tempdir().unwrap(), env: Vec::new() };
        for (variable, file) in [("EFFECTS", "effects"), ("BROKEN", "broken")] {
            let path = place.path(file).to_str().unwrap().to_owned();
            place.env.push((variable.to_owned(), path));
        }
        place
    }

    /// The program keeps its dead letters in the file `letters`.
    fn with_letters() -> Self {
        Self::new().env("LETTERS", "letters")
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).unwrap_or_default()
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.path(file), text).unwrap();
    }

    /// From now on these side effects fail, and no others.
    fn breaks(&self, what: &str) {
        self.write("broken", what);
    }

    /// The side effects that there were, each with how often.
    fn effects(&self) -> BTreeMap<String, usize> {
        let mut effects = BTreeMap::new();
        for line in self.read("effects").lines() {
            *effects.entry(line.to_owned()).or_default() += 1;
        }
        effects
    }

    /// The side effects that there were, each of them once.
    #[track_caller]
    fn effects_once(&self) -> Vec<String> {
        let effects = self.effects();
        assert!(effects.values().all(|count| *count == 1), "{effects:?}");
        effects.into_keys().collect()
    }

    /// What is in the folder, but for what the tests put there.
    fn files(&self) -> Vec<String> {
        let files = fs::read_dir(self.folder.path()).unwrap();
        let mut files: Vec<String> =
            files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        files.sort();
        files
    }

    fn command(&self, args: &[&str]) -> Command {
        self.prepare(Command::new(env!("CARGO_BIN_EXE_operator")), args)
    }

    fn prepare(&self, mut command: Command, args: &[&str]) -> Command {
        // What the machine has set is not for these.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("INNGEST_") || name == "LOG" {
                command.env_remove(name);
            }
        }
        command
            .args(args)
            .current_dir(self.folder.path())
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> Ended {
        Ended::of(self.command(args).output().unwrap())
    }

    /// Runs it with this as its standard input.
    fn run_with_input(&self, args: &[&str], input: &str) -> Ended {
        let mut child = self.start(args, Stdio::piped());
        // It may have seen enough.
        let _ = child.0.stdin.take().unwrap().write_all(input.as_bytes());
        child.end()
    }

    fn start(&self, args: &[&str], stdin: Stdio) -> Running {
        let mut command = self.command(args);
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running(command.spawn().unwrap())
    }
}

impl Ended {
    fn of(output: Output) -> Self {
        let err = String::from_utf8(output.stderr).unwrap();
        // How far it was, which a run of more than ten seconds says: it depends on the machine.
        let is_progress =
            |line: &&str| line.contains("ed, ") && line.trim_end().ends_with("failed");
        let err = err.split_inclusive('\n').filter(|line| !is_progress(line)).collect();
        Self { code: output.status.code(), out: String::from_utf8(output.stdout).unwrap(), err }
    }

    /// It ended with this code, and with nothing on standard error.
    #[track_caller]
    fn well(&self) -> &str {
        assert_eq!((self.code, self.err.as_str()), (Some(0), ""), "{self:?}");
        &self.out
    }

    /// It ended with 1. What it wrote to standard error.
    #[track_caller]
    fn failed(&self) -> &str {
        assert_eq!(self.code, Some(1), "{self:?}");
        &self.err
    }

    /// It ended with 2, and wrote nothing to standard output. What it wrote to standard error.
    #[track_caller]
    fn refused(&self) -> &str {
        assert_eq!((self.code, self.out.as_str()), (Some(2), ""), "{self:?}");
        &self.err
    }
}

/// A process, which is killed if nobody waits for its end.
struct Running(Child);

impl Running {
    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// With SIGKILL. Whether it was still running.
    fn kill(mut self) -> bool {
        let was_running = self.0.try_wait().unwrap().is_none();
        self.0.kill().unwrap();
        self.0.wait().unwrap();
        was_running
    }

    /// Waits for its end, a minute at most.
    #[track_caller]
    fn end(mut self) -> Ended {
        let (out, err) = (self.0.stdout.take().unwrap(), self.0.stderr.take().unwrap());
        let read = |mut from: Box<dyn std::io::Read + Send>| {
            thread::spawn(move || {
                let mut text = Vec::new();
                from.read_to_end(&mut text).unwrap();
                text
            })
        };
        let (out, err) = (read(Box::new(out)), read(Box::new(err)));
        let status = self.wait(Duration::from_secs(60));
        Ended::of(Output { status, stdout: out.join().unwrap(), stderr: err.join().unwrap() })
    }

    #[track_caller]
    fn wait(&mut self, at_most: Duration) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            if began.elapsed() > at_most {
                self.0.kill().unwrap();
                panic!("it still runs after {at_most:?}");
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until something is so, for 20 seconds at most.
#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(20), "not {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A failure of a function, as a line: run `r{n}`, order `o{n}`.
fn failure(function: &str, n: usize) -> String {
    failure_at(function, n, 1_795_378_383_544)
}

fn failure_at(function: &str, n: usize, ts: u64) -> String {
    let event = serde_json::json!({ "id": format!("t{n}"), "name": "shop/order.placed", "data": { "order_id": format!("o{n}") } });
    serde_json::json!({
        "name": "inngest/function.failed", "id": format!("e{n}"), "ts": ts,
        "data": {
            "function_id": function, "run_id": format!("r{n}"), "event": event, "events": [event],
            "error": { "name": "Error", "message": "no carrier" },
        },
    })
    .to_string()
        + "\n"
}

/// The failures of so many checkouts.
fn checkouts(number: usize) -> String {
    (0..number).map(|n| failure("shop-checkout", n)).collect()
}

/// What the handlers do for so many of them.
fn done_for(numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    let mut done: Vec<String> = numbers
        .into_iter()
        .flat_map(|n| [format!("count r{n}"), format!("refund o{n}"), format!("tell o{n}")])
        .collect();
    done.sort();
    done
}

/// The rows of a table, the first with its heads.
fn cells(out: &str) -> Vec<Vec<&str>> {
    let rows = out.lines().filter(|line| line.starts_with('│'));
    rows.map(|line| line.trim_matches('│').split('┆').map(str::trim).collect()).collect()
}

/// A row of a report: the handler's name and its numbers.
#[track_caller]
fn row<'a>(out: &'a str, handler: &str) -> Vec<&'a str> {
    let mut rows = cells(out).into_iter().filter(|cells| cells[0] == handler);
    rows.next().unwrap_or_else(|| panic!("no {handler} in\n{out}")).split_off(1)
}
