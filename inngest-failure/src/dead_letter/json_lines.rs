//! Dead letters in a file, a line each.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    mem,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{DeadLetter, DeadLetters, rfc3339};
use crate::{__private::BoxFuture, error::BoxError};

/// Keeps dead letters in a file, a JSON object per line.
///
/// A letter is on the disk before its handler's result is reported. Letters that are put at the same time go to the disk
/// together. Several programs may write the same file, on one machine: each locks it while it writes. If the machine
/// breaks down in the middle of a line, that line is skipped with a warning, and the others are read.
///
/// A clone writes the same file.
///
/// # Examples
///
/// ```
/// use inngest_failure::{Dispatcher, JsonLines, handlers, on_failure};
///
/// #[on_failure(function = "checkout", app = "shop")]
/// async fn refund() {}
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let path = std::env::temp_dir().join(format!("inngest-failure-doc-{}.jsonl", std::process::id()));
/// let letters = JsonLines::open(&path)?;
/// let dispatcher = Dispatcher::builder()
///     .without_inventory()
///     .register(handlers![refund])
///     .dead_letters(letters.clone())
///     .build()?;
///
/// assert_eq!(letters.letters()?.count(), 0);
/// # std::fs::remove_file(path)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct JsonLines {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    queue: Mutex<Queue>,
}

/// What is to be written.
#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Waiting>,
    /// Whether somebody writes, and will take what is waiting.
    is_busy: bool,
}

#[derive(Debug)]
struct Waiting {
    line: Vec<u8>,
    done: oneshot::Sender<Result<(), Arc<io::Error>>>,
}

/// A line that takes a letter back.
#[derive(Serialize, Deserialize)]
struct Removed {
    removed: Key,
    at: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Key {
    handler_id: String,
    event_id: String,
}

/// A line of either kind, as far as it must be read to know whether it counts.
#[derive(Deserialize)]
struct Line {
    removed: Option<Key>,
}

impl JsonLines {
    /// Letters in this file, which is made if it is not there, on Unix for its owner alone: it holds what the events hold.
    ///
    /// # Errors
    ///
    /// [`io::Error`] if the file can't be written.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        let made = !path.exists();
        append(&path)?;
        if made {
            sync_folder(&path);
        }
        Ok(Self { inner: Arc::new(Inner { path, queue: Mutex::default() }) })
    }

    /// Letters in this file, to be read.
    #[cfg(feature = "cli")]
    pub(crate) fn at(path: &Path) -> Self {
        Self { inner: Arc::new(Inner { path: path.to_owned(), queue: Mutex::default() }) }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// The letters in the file, the oldest first, without those that were [removed](Self::remove). Of those of one
    /// [key](DeadLetter::key) the last one counts.
    ///
    /// It reads the file twice, and has one letter in memory at a time. A line that is no letter is skipped, with a
    /// warning in the log.
    ///
    /// # Errors
    ///
    /// [`io::Error`] if the file can't be read; of a single letter, if it can't be read any more.
    pub fn letters(&self) -> io::Result<impl Iterator<Item = io::Result<DeadLetter>> + use<>> {
        // Both times the same file, also if it is moved away between.
        let mut file = File::open(&self.inner.path)?;
        let mut places: Vec<(u64, u64)> = self.places(&file)?.into_values().collect();
        places.sort_unstable();
        Ok(places.into_iter().map(move |(start, bytes)| {
            file.seek(SeekFrom::Start(start))?;
            let mut line = Vec::new();
            (&mut file).take(bytes).read_to_end(&mut line)?;
            serde_json::from_slice(&line).map_err(io::Error::from)
        }))
    }

    /// Takes a letter back, once what it is about has been put right: it does not count any more.
    ///
    /// Only a line is added to the file. A later letter of the same key counts again.
    ///
    /// # Errors
    ///
    /// [`io::Error`] if the file can't be written.
    pub fn remove(&self, letter: &DeadLetter) -> io::Result<()> {
        let (handler_id, event_id) = letter.key();
        self.remove_key(handler_id, event_id)
    }

    /// The same by a letter's key.
    pub(crate) fn remove_key(&self, handler_id: &str, event_id: &str) -> io::Result<()> {
        let removed = Removed {
            removed: Key { handler_id: handler_id.to_owned(), event_id: event_id.to_owned() },
            at: rfc3339(SystemTime::now()),
        };
        write(&self.inner.path, &json_line(&removed)?)
    }

    /// The keys of the letters that count.
    #[cfg(feature = "cli")]
    pub(crate) fn keys(&self) -> io::Result<impl Iterator<Item = (String, String)> + use<>> {
        Ok(self
            .places(&File::open(&self.inner.path)?)?
            .into_keys()
            .map(|Key { handler_id, event_id }| (handler_id, event_id)))
    }

    /// Where the letters that count stand: the first byte, and how many there are.
    fn places(&self, file: &File) -> io::Result<HashMap<Key, (u64, u64)>> {
        let mut places = HashMap::new();
        let mut file = BufReader::new(file);
        let (mut line, mut start, mut number) = (Vec::new(), 0, 0_u64);
        loop {
            line.clear();
            let bytes = file.read_until(b'\n', &mut line)? as u64;
            if bytes == 0 {
                return Ok(places);
            }
            number += 1;
            let text = line.trim_ascii();
            if text.is_empty() {
                start += bytes;
                continue;
            }
            match read_line(text) {
                Ok(Entry::Letter(key)) => {
                    places.insert(key, (start, bytes));
                }
                Ok(Entry::Removed(key)) => {
                    places.remove(&key);
                }
                Err(error) => tracing::warn!(
                    file = %self.inner.path.display(),
                    line = number,
                    %error,
                    "not a dead letter, skipped: the program may have been stopped while it wrote this line",
                ),
            }
            start += bytes;
        }
    }
}

enum Entry {
    Letter(Key),
    Removed(Key),
}

fn read_line(line: &[u8]) -> serde_json::Result<Entry> {
    if let Line { removed: Some(key) } = serde_json::from_slice(line)? {
        return Ok(Entry::Removed(key));
    }
    let letter: DeadLetter = serde_json::from_slice(line)?;
    let (handler_id, event_id) = letter.key();
    Ok(Entry::Letter(Key { handler_id: handler_id.to_owned(), event_id: event_id.to_owned() }))
}

impl Inner {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing in here is left half done.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever writes what is waiting.
struct Writer {
    inner: Arc<Inner>,
    is_done: bool,
}

impl Writer {
    /// Writes until nothing is waiting.
    fn run(mut self) {
        loop {
            let waiting = {
                let mut queue = self.inner.queue();
                if queue.waiting.is_empty() {
                    queue.is_busy = false;
                    self.is_done = true;
                    return;
                }
                mem::take(&mut queue.waiting)
            };
            let lines: Vec<u8> =
                waiting.iter().flat_map(|waiting| &waiting.line).copied().collect();
            let result = write(&self.inner.path, &lines).map_err(Arc::new);
            for Waiting { done, .. } in waiting {
                // Whoever waited may be gone.
                let _ = done.send(result.clone());
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.is_done {
            // It did not get to run: whoever waits is told, and the next one who comes writes.
            let mut queue = self.inner.queue();
            queue.is_busy = false;
            let waiting = mem::take(&mut queue.waiting);
            drop(queue);
            drop(waiting);
        }
    }
}

/// A letter that is being written when this is dropped is written all the same.
impl DeadLetters for JsonLines {
    fn put<'a>(&'a self, letter: &'a DeadLetter) -> BoxFuture<'a, Result<(), BoxError>> {
        Box::pin(async move {
            let line = json_line(letter)?;
            let (done, written) = oneshot::channel();
            let is_first = {
                let mut queue = self.inner.queue();
                queue.waiting.push(Waiting { line, done });
                !mem::replace(&mut queue.is_busy, true)
            };
            if is_first {
                let writer = Writer { inner: Arc::clone(&self.inner), is_done: false };
                tokio::task::spawn_blocking(move || writer.run());
            }
            let path = self.inner.path.display();
            match written.await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(format!("can't write `{path}`: {error}").into()),
                Err(_) => Err(format!("can't write `{path}`: the runtime shuts down").into()),
            }
        })
    }
}

/// Adds lines to the file, all or none of them, and waits until they are on the disk.
fn write(path: &Path, lines: &[u8]) -> io::Result<()> {
    let mut file = open_locked(path)?;
    let end = file.seek(SeekFrom::End(0))?;
    let written = (|| {
        if end > 0 && !ends_with_newline(&mut file, end)? {
            // What stands there is what is left of a line.
            file.write_all(b"\n")?;
        }
        file.write_all(lines)?;
        file.sync_data()
    })();
    if written.is_err() {
        // Better none of them than a part of one; if that can't be done either, the next line begins anew.
        let _ = file.set_len(end);
    }
    if written.is_ok() && end == 0 {
        sync_folder(path);
    }
    // The lock ends with the file.
    written
}

/// Opened each time, for somebody may have moved the file away; also while this waited for the lock.
fn open_locked(path: &Path) -> io::Result<File> {
    loop {
        let file = append(path)?;
        file.lock()?;
        if is_at(&file, path)? {
            return Ok(file);
        }
    }
}

#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;

    let file = file.metadata()?;
    match path.metadata() {
        Ok(there) => Ok((there.dev(), there.ino()) == (file.dev(), file.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Elsewhere a file that is open stays where it is, or nobody can tell.
#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> io::Result<bool> {
    Ok(true)
}

/// The value as JSON in one line. An event is written as it came, and between the parts of JSON a line may end anywhere.
pub(crate) fn json_line(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)?;
    for byte in &mut line {
        if matches!(*byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    line.push(b'\n');
    Ok(line)
}

fn append(path: &Path) -> io::Result<File> {
    private().create(true).read(true).append(true).open(path)
}

/// A file that is made is for its owner alone.
pub(crate) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn ends_with_newline(file: &mut File, end: u64) -> io::Result<bool> {
    let mut last = [0];
    file.seek(SeekFrom::Start(end - 1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

/// A file that was just made may be lost with its folder's entry. Not every platform lets one say so.
fn sync_folder(path: &Path) {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = File::open(folder.unwrap_or(Path::new(".")));
    let _ = folder.and_then(|folder| folder.sync_all());
}
