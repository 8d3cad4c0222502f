//! Failure events, one a line.
//!
//! Those that are part of the programs, `data/events.jsonl`, are what a real Inngest server has sent (the last one is an
//! example of Inngest's documentation), with only the app and function ids, the names of the trigger events, and the
//! order ids and amounts in their data replaced by the shop's; `data/README.md` says which recording each line was made
//! from.

use std::io::BufRead;

use inngest_failure::FailureEvent;

const EVENTS: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/data/events.jsonl"));

/// The file name of those that are part of the program.
pub const SHIPPED: &str = "events.jsonl";

/// The line's number, and the event that stands there or why there is none.
pub type Numbered = (usize, Result<FailureEvent, String>);

/// The events that are part of the program.
pub fn shipped() -> impl Iterator<Item = Numbered> {
    read(EVENTS)
}

/// The events in these lines, each read as it is asked for; blank lines are none.
pub fn read(lines: impl BufRead) -> impl Iterator<Item = Numbered> {
    let mut is_over = false;
    let numbered = lines.lines().enumerate().map_while(move |(i, line)| {
        let event = match line {
            _ if is_over => return None,
            Ok(line) if line.trim().is_empty() => return Some(None),
            Ok(line) => line.parse().map_err(|error| format!("{error}")),
            Err(error) => {
                is_over = true;
                Err(format!("cannot read on: {error}"))
            }
        };
        Some(Some((i + 1, event)))
    });
    numbered.flatten()
}
