//! The text of a file, which can go back to where a value began.

use std::{
    cell::RefCell,
    io::{self, BufRead, BufReader, Cursor, Read},
};

use super::{MAX_BYTES, too_long};

/// A file's text. It knows where it is, and can go back to where a value began.
pub(super) struct Text {
    file: BufReader<Box<dyn Read + Send>>,
    /// What was read too far.
    again: Cursor<Vec<u8>>,
    /// What was read since the value began, if it may have to be read again.
    recorded: Option<Vec<u8>>,
    /// How much may be read before the value is too long.
    left: usize,
    pub(super) bytes: u64,
    pub(super) line: u64,
    /// The last line that was taken as a whole, perhaps in vain.
    put_back: u64,
}

impl Text {
    pub(super) fn new(reader: Box<dyn Read + Send>) -> Self {
        Self {
            file: BufReader::with_capacity(64 * 1024, reader),
            again: Cursor::default(),
            recorded: None,
            left: 0,
            bytes: 0,
            line: 1,
            put_back: 0,
        }
    }

    /// What comes next, without taking it; nothing at the end.
    pub(super) fn ahead(&mut self) -> io::Result<&[u8]> {
        if self.again.fill_buf()?.is_empty() {
            return self.file.fill_buf();
        }
        self.again.fill_buf()
    }

    pub(super) fn take(&mut self, count: usize) {
        let is_again = self.again.fill_buf().is_ok_and(|ahead| !ahead.is_empty());
        let ahead = if is_again { self.again.fill_buf() } else { self.file.fill_buf() };
        let taken = &ahead.unwrap_or_default()[..count];
        self.line += taken.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.bytes += count as u64;
        if let Some(recorded) = &mut self.recorded {
            recorded.extend_from_slice(taken);
        }
        match is_again {
            true => self.again.consume(count),
            false => self.file.consume(count),
        }
    }

    /// Goes to the next byte that is none of space, and gives it.
    pub(super) fn skip_space(&mut self) -> io::Result<Option<u8>> {
        loop {
            let ahead = self.ahead()?;
            if ahead.is_empty() {
                return Ok(None);
            }
            match ahead.iter().position(|byte| !byte.is_ascii_whitespace()) {
                Some(0) => return Ok(Some(ahead[0])),
                Some(space) => self.take(space),
                None => {
                    let all = ahead.len();
                    self.take(all);
                }
            }
        }
    }

    /// Takes what is left of the line, unless it is too long, or was put back before.
    pub(super) fn whole_line(&mut self) -> Option<Vec<u8>> {
        if self.line == self.put_back {
            return None;
        }
        self.put_back = self.line;
        let mut line = Vec::new();
        // What can't be read is told by whoever reads on.
        while let Ok(ahead) = self.ahead()
            && !ahead.is_empty()
        {
            let end = ahead.iter().position(|byte| *byte == b'\n');
            let count = end.map_or(ahead.len(), |end| end + 1);
            line.extend_from_slice(&ahead[..count]);
            self.take(count);
            if line.len() > MAX_BYTES {
                self.put_back(&line);
                return None;
            }
            if end.is_some() {
                break;
            }
        }
        Some(line)
    }

    /// Goes back to where this began.
    pub(super) fn put_back(&mut self, text: &[u8]) {
        self.line -= text.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.bytes -= text.len() as u64;
        let rest = self.again.fill_buf().unwrap_or_default();
        self.again = Cursor::new([text, rest].concat());
    }

    /// Goes behind the end of the line.
    pub(super) fn skip_line(&mut self) {
        self.recorded = None;
        while let Ok(ahead) = self.ahead() {
            let (end, all) = (ahead.iter().position(|byte| *byte == b'\n'), ahead.len());
            self.take(end.map_or(all, |end| end + 1));
            if end.is_some() || all == 0 {
                return;
            }
        }
    }

    /// A value begins, to which it may have to go back.
    pub(super) fn record(&mut self) {
        self.recorded = Some(Vec::new());
        self.limit();
    }

    /// A value begins.
    pub(super) fn limit(&mut self) {
        self.left = MAX_BYTES;
    }

    pub(super) fn is_too_long(&self) -> bool {
        self.left == 0
    }

    pub(super) fn forget(&mut self) {
        self.recorded = None;
    }

    /// Goes back to the line after the one in which the value began.
    pub(super) fn skip_first_line(&mut self) {
        let recorded = self.recorded.take().unwrap_or_default();
        let end = recorded.iter().position(|byte| *byte == b'\n');
        let Some(end) = end.filter(|_| !self.is_too_long()) else { return self.skip_line() };
        self.put_back(&recorded[end + 1..]);
    }
}

/// The text as serde_json reads it: never further than the value goes.
pub(super) struct Shared<'a>(pub(super) &'a RefCell<Text>);

impl Read for Shared<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut text = self.0.borrow_mut();
        if text.is_too_long() {
            return Err(io::Error::other(too_long()));
        }
        let ahead = text.ahead()?;
        let count = ahead.len().min(buffer.len());
        buffer[..count].copy_from_slice(&ahead[..count]);
        text.take(count);
        text.left = text.left.saturating_sub(count);
        Ok(count)
    }
}
