//! What a person sees.

use std::io::{self, Write};

use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};

use super::Fatal;
use crate::event::is_obeyed;

/// A terminal of fewer columns than this has no room for everything.
const WIDE: u16 = 120;

/// A table that shares the width of a terminal; elsewhere no line is broken. What stands in the first column is there to
/// be copied, and so is never broken.
pub(super) fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header);
    if let Some(first) = table.column_mut(0) {
        first.set_constraint(ColumnConstraint::ContentWidth);
    }
    table
}

/// Hides these columns in a terminal that is too narrow for them.
pub(super) fn hide_if_narrow(table: &mut Table, columns: &[usize]) {
    if table.width().is_none_or(|width| width >= WIDE) {
        return;
    }
    for &column in columns {
        if let Some(column) = table.column_mut(column) {
            column.set_constraint(ColumnConstraint::Hidden);
        }
    }
}

/// Writes to standard output. That its reader has seen enough, as `head` has, is no error.
pub(super) fn print(text: &str) -> Result<(), Fatal> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Fatal::new(format!("can't write to standard output: {error}"))),
        Ok(()) => Ok(()),
    }
}

/// Writes a line to standard error. Nobody may be there to read it, which stops nothing that runs.
pub(super) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// On one line, without control characters, which a terminal might obey, and not too long.
pub(super) fn tidy(text: &str, max_chars: usize) -> String {
    let mut tidy = String::new();
    for (i, c) in text
        .split_whitespace()
        .flat_map(|word| [" ", word])
        .collect::<String>()
        .trim_start()
        .chars()
        .enumerate()
    {
        if i == max_chars {
            tidy.push('…');
            break;
        }
        tidy.push(if is_obeyed(c) { '\u{fffd}' } else { c });
    }
    tidy
}

/// JSON in which nothing is left that a terminal might obey: it escapes what JSON itself does not.
pub(super) fn escaped(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        // A line may end between the parts of JSON, and in no text of it.
        if c != '\n' && is_obeyed(c) {
            escaped.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// `1 failure`, `2 failures`.
pub(super) fn count(number: u64, one: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {one}{plural}", grouped(number))
}

/// `1,234,567`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1234567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
        assert_eq!(count(1, "failure"), "1 failure");
        assert_eq!(count(0, "failure"), "0 failures");
    }

    #[test]
    fn a_text_is_one_line_that_a_terminal_does_not_obey() {
        assert_eq!(tidy("a\n\t b\u{1b}[31m", 100), "a b\u{fffd}[31m");
        assert_eq!(tidy("abcdef", 3), "abc…");
        assert_eq!(tidy("abc", 3), "abc");
    }
}
