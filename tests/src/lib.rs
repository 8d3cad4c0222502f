//! Shared by the tests: recorded traffic, and a log that can be looked at.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
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

/// What was logged on this thread since [`Log::start`].
#[derive(Clone, Debug, Default)]
pub struct Log {
    text: Arc<Mutex<Vec<u8>>>,
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
        // A span or an event that another thread met for the first time just now may believe that nobody listens.
        tracing::callsite::rebuild_interest_cache();
        (log, guard)
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
