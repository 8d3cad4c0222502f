//! Dead letters: when one is written, what is in it, where it is kept, and how a handler is tried again from there.

mod counters;
mod hosts;
mod in_process;
mod json_lines;
mod killed;
mod retry;
#[path = "../sdk/server.rs"]
mod sdk_server;
mod send_event;

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc, Mutex, Once,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use inngest_failure::{
    Backoff, BoxError, BoxFuture, DeadLetter, DeadLetters, Dispatcher, DispatcherBuilder,
    FailureEvent, HandlerError, testing::failure,
};
use serde_json::json;

type Outcome<T = ()> = Result<T, HandlerError>;

/// A builder without the handlers of the other tests, and with short waits.
fn builder() -> DispatcherBuilder {
    static SILENCED: Once = Once::new();
    SILENCED.call_once(|| {
        // Before the first dispatcher has its own hook, which is to see them.
        tests::silence_panics(PANIC);
        tests::silence_panics("there is no reactor running");
    });
    tests::listen();
    let wait = Duration::from_millis(1);
    let backoff = Backoff::new().first(wait).max(wait);
    Dispatcher::builder().without_inventory().app("shop").backoff(backoff)
}

fn event(function_id: &str) -> FailureEvent {
    failure(function_id).error(("CardError", "card declined")).data(json!({ "id": "o1" })).build()
}

/// What handlers did, in order.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// Keeps letters in memory.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<DeadLetter>>>);

impl Kept {
    fn take(&self) -> Vec<DeadLetter> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    /// The one letter that was written since.
    #[track_caller]
    fn one(&self) -> DeadLetter {
        let mut letters = self.take();
        assert_eq!(letters.len(), 1, "{letters:#?}");
        letters.remove(0)
    }

    #[track_caller]
    fn none(&self) {
        let letters = self.take();
        assert!(letters.is_empty(), "{letters:#?}");
    }
}

impl DeadLetters for Kept {
    fn put<'a>(&'a self, letter: &'a DeadLetter) -> BoxFuture<'a, Result<(), BoxError>> {
        self.0.lock().unwrap().push(letter.clone());
        Box::pin(async { Ok(()) })
    }
}

/// A sink that keeps nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Broken {
    Refuses,
    Panics,
    /// When it is asked, before there is a future.
    PanicsAtOnce,
    Hangs,
    /// Its future panics when it is dropped, too.
    HangsAndPanics,
}

impl Broken {
    const ALL: [Self; 5] =
        [Self::Refuses, Self::Panics, Self::PanicsAtOnce, Self::Hangs, Self::HangsAndPanics];

    /// What the log says of it.
    fn reason(self) -> &'static str {
        match self {
            Self::Refuses => "no room: the shelf is full",
            Self::Panics | Self::PanicsAtOnce | Self::HangsAndPanics => {
                "the sink panicked at tests/dead_letters/main.rs:"
            }
            Self::Hangs => "the sink took longer than 30 seconds",
        }
    }
}

/// What everything here panics with.
const PANIC: &str = "expected in a dead letter";

#[derive(Debug)]
struct NoRoom(std::io::Error);

impl std::fmt::Display for NoRoom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no room")
    }
}

impl std::error::Error for NoRoom {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("{PANIC}");
    }
}

impl DeadLetters for Broken {
    fn put<'a>(&'a self, _: &'a DeadLetter) -> BoxFuture<'a, Result<(), BoxError>> {
        match self {
            Self::Refuses => {
                Box::pin(async { Err(NoRoom(std::io::Error::other("the shelf is full")).into()) })
            }
            Self::Panics => Box::pin(async { panic!("{PANIC}") }),
            Self::PanicsAtOnce => panic!("{PANIC}"),
            Self::Hangs => Box::pin(std::future::pending()),
            Self::HangsAndPanics => {
                let guard = PanicsWhenDropped;
                Box::pin(async move {
                    let _guard = guard;
                    std::future::pending().await
                })
            }
        }
    }
}

/// The letters in a log, each with the reason why it is there.
#[track_caller]
fn logged(log: &str) -> Vec<(String, DeadLetter)> {
    let lines = log.lines().filter(|line| line.contains("a dead letter could not be kept"));
    let letter = |line: &str| {
        assert!(line.trim_start().starts_with("ERROR"), "{line}");
        let (before, letter) = line.split_once(" letter=").expect("the letter");
        let (_, error) = before.split_once(" error=").expect("the reason");
        let text = |quoted: &str| serde_json::from_str::<String>(quoted).expect("a text");
        (text(error), serde_json::from_str(&text(letter)).expect("a whole letter"))
    };
    lines.map(letter).collect()
}

/// A file that is gone when this is dropped.
struct TestFile(PathBuf);

impl TestFile {
    fn new() -> Self {
        static FILES: AtomicUsize = AtomicUsize::new(0);
        let number = FILES.fetch_add(1, Ordering::Relaxed);
        let name = format!("inngest-failure-letters-{}-{number}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for TestFile {
    fn drop(&mut self) {
        // Some tests put folders in its place.
        let _ = fs::remove_file(&self.0).or_else(|_| fs::remove_dir_all(&self.0));
    }
}
