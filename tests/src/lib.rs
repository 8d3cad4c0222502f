//! Shared by the tests: recorded traffic, a log that can be looked at, and real HTTP.

pub mod http;

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, Once},
};

use tracing_subscriber::fmt::MakeWriter;

/// The programs in the README.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// A recorded file, by its path below `fixtures/`.
pub fn fixture(path: &str) -> Vec<u8> {
    let path = fixtures().join(path);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The failure event in a recorded call.
pub fn recorded_event(path: &str) -> serde_json::Value {
    let mut call: serde_json::Value = serde_json::from_slice(&fixture(path)).unwrap();
    call["event"].take()
}

/// The paths of all recorded files of these folders below `fixtures/`, sorted.
pub fn recordings(folders: &[&str]) -> Vec<String> {
    let mut paths = Vec::new();
    for folder in folders {
        for file in fs::read_dir(fixtures().join(folder)).unwrap() {
            let name = file.unwrap().file_name();
            paths.push(format!("{folder}/{}", name.to_str().unwrap()));
        }
    }
    paths.sort();
    paths
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// Keeps the panics with this message, which are part of a test, out of its output.
pub fn silence_panics(message: &'static str) {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !info.to_string().contains(message) {
            before(info);
        }
    }));
}

/// The memory that the process occupies, in MiB.
pub fn memory() -> usize {
    memory_stats::memory_stats().map_or(0, |stats| stats.physical_mem / 1024 / 1024)
}

/// What was logged on this thread since [`Log::start`].
#[derive(Clone, Debug, Default)]
pub struct Log {
    text: Arc<Mutex<Vec<u8>>>,
}

/// Lets every span and event know from the start that somebody may listen.
///
/// One that a thread meets for the first time while another thread starts the first [`Log`] can come to believe
/// for good that nobody does.
pub fn listen() {
    static LISTENING: Once = Once::new();
    LISTENING.call_once(|| {
        let nobody = tracing_subscriber::registry();
        tracing::subscriber::set_global_default(nobody)
            .expect("there is no other global subscriber");
    });
}

impl Log {
    /// Starts a log of everything down to this level, on this thread, as long as the guard lives.
    pub fn start(level: tracing::Level) -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_ansi(false)
            .without_time()
            .with_writer(log.clone())
            .finish();
        let guard = tracing::subscriber::set_default(subscriber);
        (log, guard)
    }

    /// Starts a log of everything, on all threads, as long as the process lives.
    pub fn start_for_all() -> Self {
        let log = Self::default();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .without_time()
            .with_writer(log.clone())
            .finish();
        tracing::subscriber::set_global_default(subscriber)
            .expect("there is no other global subscriber");
        log
    }

    /// The log so far.
    pub fn text(&self) -> String {
        String::from_utf8(self.text.lock().unwrap().clone()).unwrap()
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
