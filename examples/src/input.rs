//! Where the failure events come from: files, standard input, or the ones that are part of the
//! program.
//!
//! The latter, `data/events.jsonl`, are what a real Inngest server has sent (the last one is an example
//! of Inngest's documentation), with only the app and function ids, the names of the trigger events,
//! and the order ids and amounts in their data replaced by the shop's; `data/README.md` says which
//! recording each line was made from.

use std::{
    collections::VecDeque,
    fmt,
    fs::File,
    io::{self, BufRead, BufReader, Cursor, Read},
    path::Path,
    rc::Rc,
};

use inngest_failure::{FailureEvent, ParseError};
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

const EVENTS: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/data/events.jsonl"));

/// The failure events of one file, read as they are asked for.
pub struct Source {
    name: Rc<str>,
    /// `None` after its end.
    reader: Option<Box<dyn BufRead>>,
    line: usize,
    /// Whether a line that is not blank was read.
    has_begun: bool,
    /// What one line held that is not yet given out.
    pending: VecDeque<Entry>,
}

/// A failure event and where it stands, or what is wrong there.
pub type Entry = Result<(Place, FailureEvent), Fault>;

impl Source {
    /// The events that are part of the program.
    pub fn shipped() -> Self {
        Self::new("events.jsonl".into(), EVENTS.as_bytes())
    }

    /// A file, or standard input for `-`.
    ///
    /// # Errors
    ///
    /// Why the file can't be read, as a message for the user.
    pub fn open(path: &Path) -> Result<Self, String> {
        if path.as_os_str() == "-" {
            return Ok(Self::new("stdin".into(), io::stdin().lock()));
        }
        let name = path.display().to_string();
        let open = || {
            let mut reader = BufReader::new(File::open(path)?);
            reader.fill_buf()?; // a directory can be opened, but not read
            Ok(reader)
        };
        match open() {
            Ok(reader) => Ok(Self::new(name, reader)),
            Err::<_, io::Error>(error) => {
                Err(format!("cannot read `{name}`: {error}; name a file of failure events, or `-`"))
            }
        }
    }

    fn new(name: String, reader: impl BufRead + 'static) -> Self {
        Self {
            name: name.into(),
            reader: Some(Box::new(reader)),
            line: 0,
            has_begun: false,
            pending: VecDeque::new(),
        }
    }

    /// Reads the next piece of JSON: a line, or all of a document that has several.
    fn read(&mut self) -> io::Result<Option<Text>> {
        let Some(reader) = &mut self.reader else { return Ok(None) };
        let Some(text) = read_line(reader)? else { return Ok(None) };
        self.line += 1;
        match text {
            Text::Whole(line) if !self.has_begun && !line.trim_ascii().is_empty() => {
                self.has_begun = true;
                if is_cut_off(&line) {
                    self.read_on(line).map(Some)
                } else {
                    Ok(Some(Text::Whole(line)))
                }
            }
            text => Ok(Some(text)),
        }
    }

    /// Reads the rest of a document that begins with this line.
    ///
    /// It may also be JSON lines of which the first is broken: then the rest is left to be read.
    fn read_on(&mut self, mut json: Vec<u8>) -> io::Result<Text> {
        let Some(mut reader) = self.reader.take() else { return Ok(Text::Whole(json)) };
        let first_line = json.len();
        // One byte more than is allowed, to know whether there is more.
        let rest = (FailureEvent::MAX_BYTES + 1).saturating_sub(first_line);
        reader.by_ref().take(rest as u64).read_to_end(&mut json)?;

        let is_json = serde_json::from_slice::<IgnoredAny>(&json).is_ok();
        let has_lines = json.windows(2).any(|bytes| bytes == b"\n{");
        if !is_json && has_lines {
            let rest = Cursor::new(json.split_off(first_line));
            self.reader = Some(Box::new(rest.chain(reader)));
        } else if json.len() > FailureEvent::MAX_BYTES {
            return Ok(Text::TooLong);
        }
        Ok(Text::Whole(json))
    }

    fn place(&self, item: Option<usize>) -> Place {
        Place { source: Rc::clone(&self.name), line: self.line, item }
    }

    fn fault(&self, item: Option<usize>, message: &str) -> Fault {
        // Each of several JSON lines is line 1 to its parser: only the column says something.
        let message = message.replace(" at line 1 column ", " at column ");
        Fault { place: self.place(item), message }
    }

    /// The events in a piece of JSON, which is a blank line, an event, a call's body, or an array.
    fn entries(&self, json: &[u8]) -> VecDeque<Entry> {
        let entry = |item, event: Result<FailureEvent, ParseError>| match event {
            Ok(event) => Ok((self.place(item), event)),
            Err(error) => Err(self.fault(item, &error.to_string())),
        };
        match json.first() {
            None => VecDeque::new(),
            Some(b'[') => match serde_json::from_slice::<Vec<&RawValue>>(json) {
                Ok(items) => {
                    let items = items.iter().enumerate();
                    items.map(|(i, item)| entry(Some(i), item.get().parse())).collect()
                }
                Err(error) => [Err(self.fault(None, &format!("not JSON: {error}")))].into(),
            },
            Some(_) => [entry(None, FailureEvent::from_slice(json))].into(),
        }
    }
}

/// Shows where it is, not what it reads.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("name", &self.name)
            .field("line", &self.line)
            .finish_non_exhaustive()
    }
}

impl Iterator for Source {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        loop {
            if let Some(entry) = self.pending.pop_front() {
                return Some(entry);
            }
            match self.read() {
                Ok(Some(Text::Whole(json))) => self.pending = self.entries(json.trim_ascii()),
                Ok(Some(Text::TooLong)) => {
                    let max = FailureEvent::MAX_BYTES;
                    let message = format!(
                        "longer than the {max} bytes that a failure event may have; write one event a line"
                    );
                    return Some(Err(self.fault(None, &message)));
                }
                Ok(None) => return None,
                Err(error) => {
                    self.reader = None;
                    let message = format!("cannot read on after this line: {error}");
                    return Some(Err(self.fault(None, &message)));
                }
            }
        }
    }
}

enum Text {
    Whole(Vec<u8>),
    TooLong,
}

/// Reads a line, of which at most as much as a failure event may have is kept.
fn read_line(reader: &mut impl BufRead) -> io::Result<Option<Text>> {
    let mut line = Vec::new();
    // One byte for the line's end.
    let max = FailureEvent::MAX_BYTES + 1;
    reader.take(max as u64).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.len() == max && !line.ends_with(b"\n") {
        reader.skip_until(b'\n')?;
        return Ok(Some(Text::TooLong));
    }
    Ok(Some(Text::Whole(line)))
}

/// Whether this is the beginning of JSON that goes on.
fn is_cut_off(json: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(json).is_err_and(|error| error.is_eof())
}

/// Where a failure event stands.
#[derive(Debug)]
pub struct Place {
    source: Rc<str>,
    line: usize,
    /// If the line, or the document that begins there, is an array.
    item: Option<usize>,
}

impl Place {
    /// The line, for a reader who knows in which file.
    pub fn in_source(&self) -> String {
        let Self { line, item, .. } = self;
        item.map_or(line.to_string(), |item| format!("{line}[{item}]"))
    }

    /// The file's name, without its folder, and the line.
    pub fn short(&self) -> String {
        let name = Path::new(&*self.source).file_name().unwrap_or_default();
        format!("{}:{}", name.display(), self.in_source())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source, self.in_source())
    }
}

/// What is wrong with a line.
#[derive(Debug)]
pub struct Fault {
    place: Place,
    message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}
