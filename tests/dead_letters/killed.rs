//! Letters of several processes in one file: some are killed while they write, some have no room.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use inngest_failure::{
    DeadLetter, DeadLetters, Dispatcher, Failure, JsonLines, NonRetriable, handlers, on_failure,
    testing::failure,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tests::Log;

use crate::{TestFile, builder, json_lines::letter, logged};

/// As many processes as write at once.
const WRITERS: usize = 3;

#[on_failure(function = "checkout", id = "fails")]
async fn fails(_: Failure<String>) -> Result<(), NonRetriable> {
    Err(NonRetriable::new("closed"))
}

fn dispatcher(letters: JsonLines) -> Dispatcher {
    builder().register(handlers![fails]).dead_letters(letters).build().unwrap()
}

/// What a process of its own runs; nothing if it is run by hand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "only for the tests that start it"]
async fn child() {
    let Ok(path) = std::env::var("LETTERS_FILE") else { return };
    let name: u64 = std::env::var("LETTERS_WRITER").unwrap().parse().unwrap();
    let dispatcher = dispatcher(JsonLines::open(path).unwrap());
    let write = |task: u64| {
        let dispatcher = dispatcher.clone();
        async move {
            let mut random = StdRng::seed_from_u64(name * 2 + task);
            for i in 0.. {
                // Large ones are written in several parts.
                let bytes = match random.random_ratio(1, 4) {
                    true => random.random_range(100_000..1_000_000),
                    false => random.random_range(0..2_000),
                };
                let id = format!("{name}-{task}-{i}-{bytes}");
                let event = failure("shop-checkout").run_id(&id).data("x".repeat(bytes)).build();
                dispatcher.dispatch(event).await;
                let mut out = std::io::stdout().lock();
                writeln!(out, "kept {id}").unwrap();
                out.flush().unwrap();
            }
        }
    };
    tokio::join!(tokio::spawn(write(0)), tokio::spawn(write(1))).0.unwrap();
}

/// A writer, which is killed with SIGKILL when this is dropped.
struct Process {
    child: Child,
    reader: Option<JoinHandle<()>>,
}

impl Process {
    fn start(path: &str, name: usize, kept: &Arc<Mutex<Vec<String>>>) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "killed::child", "--nocapture"])
            .env("LETTERS_FILE", path)
            .env("LETTERS_WRITER", name.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let kept = Arc::clone(kept);
        let reader = thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some((_, id)) = line.split_once("kept ") {
                    kept.lock().unwrap().push(id.to_owned());
                }
            }
        });
        Self { child, reader: Some(reader) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.reader.take().expect("it was not dropped before").join().unwrap();
    }
}

fn killed(kills: usize) {
    let mut random = StdRng::seed_from_u64(17);
    let file = TestFile::new();
    let path = file.0.to_str().unwrap();
    let letters = JsonLines::open(path).unwrap();
    let kept = Arc::<Mutex<Vec<String>>>::default();
    let start = |name| Process::start(path, name, &kept);
    let mut processes: Vec<Process> = (0..WRITERS).map(start).collect();
    for kill in 0..kills {
        let before = kept.lock().unwrap().len();
        let begun = Instant::now();
        // At a random moment, but not before anybody has written.
        while kept.lock().unwrap().len() == before && begun.elapsed() < Duration::from_secs(20) {
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_micros(random.random_range(0..50_000)));
        let victim = random.random_range(0..WRITERS);
        processes[victim] = start(WRITERS + kill);
    }
    processes.clear();
    check(&letters, &kept, kills);
}

/// Whatever was acknowledged is there, and what is there is whole.
fn check(letters: &JsonLines, kept: &Mutex<Vec<String>>, kills: usize) {
    let kept = kept.lock().unwrap().clone();
    assert!(kept.len() > kills, "{}", kept.len());
    let (log, _guard) = Log::start(tracing::Level::WARN);
    let mut read = HashMap::new();
    for letter in letters.letters().unwrap() {
        let letter = letter.unwrap();
        let id = letter.event.run_id().to_owned();
        let bytes: usize = id.rsplit('-').next().unwrap().parse().unwrap();
        let data = letter.event.parse::<String>().unwrap().event.data;
        assert!(data.len() == bytes && data.bytes().all(|byte| byte == b'x'), "{id}");
        assert_eq!(letter.error.message, "closed");
        *read.entry(id).or_insert(0) += 1;
    }
    for id in &kept {
        assert_eq!(read.get(id), Some(&1), "{id}");
    }
    let log = log.text();
    let torn = log.matches("not a dead letter, skipped").count();
    assert_eq!(log.lines().count(), torn, "{log}");
    assert!(torn <= kills + WRITERS, "{torn}");
    println!(
        "{kills} writers killed: {} letters acknowledged, {} read, {torn} lines torn",
        kept.len(),
        read.len()
    );
}

#[test]
fn writers_that_are_killed_spoil_no_letter() {
    killed(3);
}

#[test]
#[ignore = "the full count"]
fn writers_that_are_killed_300_times_spoil_no_letter() {
    killed(300);
}

/// What a process runs that may not write large files.
#[tokio::test]
#[ignore = "only for the test that starts it"]
async fn child_without_room() {
    let Ok(path) = std::env::var("LETTERS_FILE") else { return };
    let (log, _guard) = Log::start(tracing::Level::ERROR);
    let letters = JsonLines::open(path).unwrap();
    let dispatcher = dispatcher(letters.clone());
    let put = async |id: &str, bytes: usize| {
        let event = failure("shop-checkout").run_id(id).data("x".repeat(bytes)).build();
        assert!(!dispatcher.dispatch(event).await.is_ok());
        logged(&log.text()).len()
    };
    let mut fitted = 0;
    while put(&format!("fits-{fitted}"), 7_000).await == 0 {
        fitted += 1;
        assert!(fitted < 100, "there is room without end");
    }
    // There is room for less still.
    assert_eq!(put("small", 1).await, 1);
    assert_eq!(put("never", 1_000_000).await, 2);
    assert!(letters.remove(&letter("e1", &"x".repeat(1_000))).is_ok());
    let unkept = logged(&log.text());
    assert!(unkept[0].0.contains("File too large"), "{}", unkept[0].0);
    assert_eq!(unkept[0].1.event.run_id(), format!("fits-{fitted}"));
    assert_eq!(unkept[1].1.event.parse::<String>().unwrap().event.data.len(), 1_000_000);
    println!("fitted {fitted}");
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_has_no_room_keeps_what_it_has() {
    let file = TestFile::new();
    let path = file.0.to_str().unwrap();
    // In blocks of 512 or 1024 bytes.
    let script = "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\"";
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "killed::child_without_room", "--nocapture"])
        .env("LETTERS_FILE", path)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let fitted = text.split_once("fitted ").expect("how many").1.lines().next().unwrap();
    let fitted: usize = fitted.parse().unwrap();
    assert!(fitted > 1, "{fitted}");

    let letters = JsonLines::open(path).unwrap();
    let (log, _guard) = Log::start(tracing::Level::WARN);
    let read: Vec<DeadLetter> = letters.letters().unwrap().map(Result::unwrap).collect();
    assert_eq!(log.text(), "");
    let ids: Vec<&str> = read.iter().map(|letter| letter.event.run_id()).collect();
    let mut expected: Vec<String> = (0..fitted).map(|i| format!("fits-{i}")).collect();
    expected.push("small".to_owned());
    assert_eq!(ids, expected);
    assert!(fs::read(path).unwrap().ends_with(b"}\n"));
    letters.put(&letter("e1", "after")).await.unwrap();
    assert_eq!(letters.letters().unwrap().count(), fitted + 2);
}
