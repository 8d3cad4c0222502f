//! Failure events from files of any size, one at a time.

mod text;

use std::{
    cell::RefCell,
    fmt,
    fs::File,
    io::{self, Read},
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    thread,
};

use serde::{
    Deserialize, Deserializer,
    de::{self, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use self::text::{Shared, Text};
use super::Fatal;
use crate::event::{CANCELLED, FAILED, FailureEvent};

/// The longest piece of JSON that is read: an event has no more than 4 MiB, and the body of a call not much more.
const MAX_BYTES: usize = 2 * FailureEvent::MAX_BYTES;

/// A file that is open.
pub(super) struct Source {
    name: Arc<str>,
    reader: Box<dyn Read + Send>,
    /// How large it is, if that is known.
    pub(super) bytes: Option<u64>,
}

/// What was found in a file.
pub(super) struct Entry {
    pub(super) place: Place,
    pub(super) found: Found,
    /// How much has been read of all files.
    pub(super) read: u64,
}

pub(super) enum Found {
    Event(FailureEvent),
    /// An event of another name.
    Other,
    Fault(String),
}

/// Where something stands.
#[derive(Clone)]
pub(super) struct Place {
    source: Arc<str>,
    line: u64,
    /// If an array begins there.
    item: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source, self.line)?;
        self.item.map_or(Ok(()), |item| write!(f, "[{item}]"))
    }
}

impl Source {
    /// A file that is open already.
    pub(super) fn of(name: &str, file: File) -> Self {
        let bytes = file.metadata().ok().map(|metadata| metadata.len());
        Self { name: name.into(), reader: Box::new(file), bytes }
    }

    /// Opens a file, or standard input for `-`.
    pub(super) fn open(path: &PathBuf) -> Result<Self, Fatal> {
        if path.as_os_str() == "-" {
            return Ok(Self { name: "stdin".into(), reader: Box::new(io::stdin()), bytes: None });
        }
        let open = || {
            let file = File::open(path)?;
            let metadata = file.metadata()?;
            if metadata.is_dir() {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            Ok((file, metadata.is_file().then_some(metadata.len())))
        };
        match open() {
            Ok((file, bytes)) => {
                let name = path.display().to_string().into();
                Ok(Self { name, reader: Box::new(file), bytes })
            }
            Err::<_, io::Error>(error) => Err(Fatal::new(format!(
                "can't read `{}`: {error}; give a file of failure events, or `-` for standard input",
                path.display()
            ))),
        }
    }
}

/// Reads the files on a thread of their own, as fast as what is found is taken, until nobody takes it any more.
pub(super) fn read(sources: Vec<Source>) -> Result<mpsc::Receiver<Entry>, Fatal> {
    let (sender, receiver) = mpsc::channel(64);
    // None of the runtime's own threads: it waits for those when it ends, and standard input may never.
    let read = move || {
        let mut before = 0;
        for Source { name, reader, .. } in sources {
            let text = Rc::new(RefCell::new(Text::new(reader)));
            let mut is_wanted = |line, item, found| {
                let place = Place { source: Arc::clone(&name), line, item };
                let read = before + text.borrow().bytes;
                sender.blocking_send(Entry { place, found, read }).is_ok()
            };
            if !read_one(&text, &mut is_wanted) {
                return;
            }
            before += text.borrow().bytes;
        }
    };
    thread::Builder::new()
        .name("input".to_owned())
        .spawn(read)
        .map_err(|error| Fatal::new(format!("can't start a thread that reads: {error}")))?;
    Ok(receiver)
}

/// Reads a file to its end. Whether anybody still wants what is found.
fn read_one(
    text: &Rc<RefCell<Text>>,
    is_wanted: &mut dyn FnMut(u64, Option<usize>, Found) -> bool,
) -> bool {
    loop {
        let begins = text.borrow_mut().skip_space();
        let line = text.borrow().line;
        let goes_on = match begins {
            Ok(None) => return true,
            Ok(Some(b'[')) => read_array(text, line, is_wanted),
            Ok(Some(_)) => read_value(text, line, is_wanted),
            Err(error) => {
                // Whatever follows can't be read either.
                return is_wanted(line, None, Found::Fault(format!("can't read on: {error}")));
            }
        };
        if !goes_on {
            return false;
        }
    }
}

/// Reads one value. If it is broken its first line is left out: the next one may be a value of its own.
fn read_value(
    text: &Rc<RefCell<Text>>,
    line: u64,
    is_wanted: &mut dyn FnMut(u64, Option<usize>, Found) -> bool,
) -> bool {
    // In most files each line is a value, which is read much faster as a whole.
    let whole = text.borrow_mut().whole_line();
    if let Some(whole) = whole {
        match serde_json::from_slice::<&RawValue>(&whole) {
            Ok(value) => return is_wanted(line, None, look(value)),
            Err(_) => text.borrow_mut().put_back(&whole),
        }
    }
    text.borrow_mut().record();
    let mut deserializer = serde_json::Deserializer::from_reader(Shared(text));
    let value = Box::<RawValue>::deserialize(&mut deserializer);
    let mut text = text.borrow_mut();
    match value {
        Ok(value) => {
            text.forget();
            drop(text);
            is_wanted(line, None, look(&value))
        }
        Err(error) => {
            let fault = match text.is_too_long() {
                true => too_long(),
                false => format!("not JSON: {}", at_column(&error, line)),
            };
            text.skip_first_line();
            drop(text);
            is_wanted(line, None, Found::Fault(fault))
        }
    }
}

fn read_array(
    text: &Rc<RefCell<Text>>,
    line: u64,
    is_wanted: &mut dyn FnMut(u64, Option<usize>, Found) -> bool,
) -> bool {
    let mut items = Items { text, line, count: 0, is_wanted, is_over: false };
    text.borrow_mut().limit();
    let mut deserializer = serde_json::Deserializer::from_reader(Shared(text));
    let read = deserializer.deserialize_seq(&mut items);
    if items.is_over {
        return false;
    }
    let Err(error) = read else { return true };
    let fault = match text.borrow().is_too_long() {
        true => too_long(),
        false => {
            format!("not JSON: {}; the rest of the array is not read", at_column(&error, line))
        }
    };
    let item = Some(items.count);
    text.borrow_mut().skip_line();
    is_wanted(line, item, Found::Fault(fault))
}

/// The error, with the line of the file.
fn at_column(error: &serde_json::Error, first_line: u64) -> String {
    let place = format!(" at line {} column {}", error.line(), error.column());
    let message = error.to_string();
    let message = message.strip_suffix(&place).unwrap_or(&message);
    match error.line() as u64 {
        0 => message.to_owned(),
        // The line has ended in the middle of it.
        line if error.column() == 0 => {
            format!("{message} at the end of line {}", first_line + line - 2)
        }
        1 => format!("{message} at column {}", error.column()),
        line => format!("{message} at line {}, column {}", first_line + line - 1, error.column()),
    }
}

fn too_long() -> String {
    format!("longer than the {MAX_BYTES} bytes that are read of one event")
}

/// What kind of event it is.
fn look(json: &RawValue) -> Found {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        name: Option<&'a RawValue>,
        event: Option<Box<NamedOnce<'a>>>,
    }
    #[derive(Deserialize)]
    struct NamedOnce<'a> {
        #[serde(borrow)]
        name: Option<&'a RawValue>,
    }
    match json.get().parse() {
        Ok(event) => Found::Event(event),
        Err(error) => {
            let named = serde_json::from_str::<Named<'_>>(json.get()).ok();
            let name = named
                .and_then(|named| named.name.or_else(|| named.event.and_then(|event| event.name)));
            let name: Option<String> = name.and_then(|name| serde_json::from_str(name.get()).ok());
            match name {
                Some(name) if name != FAILED && name != CANCELLED => Found::Other,
                _ => Found::Fault(error.to_string()),
            }
        }
    }
}

/// The items of an array, each given on as soon as it is read.
struct Items<'a> {
    text: &'a RefCell<Text>,
    line: u64,
    count: usize,
    is_wanted: &'a mut dyn FnMut(u64, Option<usize>, Found) -> bool,
    is_over: bool,
}

impl<'de> Visitor<'de> for &mut Items<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while let Some(item) = items.next_element::<Box<RawValue>>()? {
            if !(self.is_wanted)(self.line, Some(self.count), look(&item)) {
                self.is_over = true;
                return Err(de::Error::custom("nobody reads on"));
            }
            self.count += 1;
            self.text.borrow_mut().limit();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn event(id: &str) -> String {
        format!(
            r#"{{"name":"inngest/function.failed","id":"{id}","data":{{"function_id":"shop-checkout","run_id":"r"}}}}"#
        )
    }

    /// What is found: ids of events, `other`, and faults, each with its place.
    fn found(text: &str) -> Vec<String> {
        let text =
            Rc::new(RefCell::new(Text::new(Box::new(Cursor::new(text.as_bytes().to_vec())))));
        let mut all = Vec::new();
        read_one(&text, &mut |line, item, found| {
            let place = Place { source: "f".into(), line, item };
            all.push(match found {
                Found::Event(event) => format!("{place} {}", event.id()),
                Found::Other => format!("{place} other"),
                Found::Fault(fault) => format!("{place} {fault}"),
            });
            true
        });
        all
    }

    #[test]
    fn events_are_found_in_lines_arrays_documents_and_calls() {
        let (a, b) = (event("a"), event("b"));
        assert_eq!(found(&format!("{a}\n\n{b}\n")), ["f:1 a", "f:3 b"]);
        assert_eq!(found(&format!("{a}{b}")), ["f:1 a", "f:1 b"]);
        assert_eq!(found(&format!("[{a},\n{b}]\n[{a}]")), ["f:1[0] a", "f:1[1] b", "f:3[0] a"]);
        assert_eq!(found(&format!(r#"{{"ctx":{{}},"event":{a},"events":[{a}]}}"#)), ["f:1 a"]);
        let pretty: serde_json::Value = serde_json::from_str(&a).unwrap();
        let pretty = serde_json::to_string_pretty(&pretty).unwrap();
        assert_eq!(found(&format!("{pretty}\n{pretty}\r\n{b}")), ["f:1 a", "f:9 a", "f:17 b"]);
        assert_eq!(found(" \n"), Vec::<String>::new());
        assert_eq!(found("[]"), Vec::<String>::new());
    }

    #[test]
    fn other_events_are_told_from_faults() {
        assert_eq!(found(r#"{"name":"shop/order.placed","data":{}}"#), ["f:1 other"]);
        assert_eq!(found(r#"{"ctx":{},"event":{"name":"shop/order.placed"}}"#), ["f:1 other"]);
        let found = found(r#"{"name":"inngest/function.failed"}"#);
        assert!(found[0].starts_with("f:1 ") && !found[0].ends_with("other"), "{found:?}");
    }

    #[test]
    fn a_broken_line_costs_no_other() {
        let (a, b) = (event("a"), event("b"));
        for torn in 1..a.len() {
            let found = found(&format!("{}\n{a}\n{b}\n", &a[..torn]));
            assert_eq!(found.len(), 3, "{torn}: {found:?}");
            assert!(found[0].starts_with("f:1 not JSON: "), "{torn}: {found:?}");
            assert_eq!(found[1..], ["f:2 a", "f:3 b"], "{torn}");
        }
        assert_eq!(
            found(&format!("hello\n{a}")),
            ["f:1 not JSON: expected value at column 1", "f:2 a"]
        );
        assert_eq!(
            found("{\"a\":\n}"),
            [
                "f:1 not JSON: expected value at line 2, column 1",
                "f:2 not JSON: expected value at column 1"
            ]
        );
        assert_eq!(
            found(&format!("[{a},oops]\n{b}")),
            [
                "f:1[0] a",
                "f:1[1] not JSON: expected value at column 98; the rest of the array is not read",
                "f:2 b"
            ]
        );
    }

    #[test]
    fn what_is_too_long_is_not_kept_in_memory() {
        let long = format!("{{\"name\":\"{}\"}}\n{}", "x".repeat(MAX_BYTES + 1000), event("a"));
        assert_eq!(
            found(&long),
            ["f:1 longer than the 8388608 bytes that are read of one event", "f:2 a"]
        );
    }
}
