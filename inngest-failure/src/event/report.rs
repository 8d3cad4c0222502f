//! An error as a person reads it who was woken by it.

use std::{borrow::Cow, iter::Peekable, str::Chars};

use super::{
    failure_error::FailureError,
    stack::{Frame, frames, without_message},
};

/// The longest report, in characters. Its parts' limits leave room in it for a frame, however long they are.
pub(super) const MAX_CHARS: usize = 2_000;
/// The longest first line: name and message.
const MAX_MESSAGE: usize = 800;
/// How many causes are shown.
const MAX_CAUSES: usize = 3;
const MAX_CAUSE: usize = 220;
const MAX_FRAME: usize = 300;
/// What a mark takes at most, in place of what was left out.
const MARK: usize = 40;

pub(super) fn report(error: &FailureError) -> String {
    let mut report = String::new();
    report.push_str(&cut(&headline(error), MAX_MESSAGE));

    let causes: Vec<&FailureError> =
        std::iter::successors(error.cause.as_deref(), |error| error.cause.as_deref()).collect();
    // The last one is the root of it all, and is never what is left out.
    let left_out = causes.len().saturating_sub(MAX_CAUSES);
    let last = causes.len().saturating_sub(1);
    for (i, cause) in causes.iter().enumerate() {
        if i < MAX_CAUSES - 1 || i == last {
            report.push_str("\ncaused by: ");
            report.push_str(&cut(&headline(cause), MAX_CAUSE));
        } else if i == MAX_CAUSES - 1 {
            report.push_str(&format!("\n… [{left_out} {} left out]", plural(left_out, "cause")));
        }
    }

    // An error that was made without a stack may have been caused by one with.
    let with_stack = std::iter::once(error)
        .chain(causes)
        .find_map(|error| Some((error, error.stack.as_deref()?)));
    if let Some((error, stack)) = with_stack {
        let room = MAX_CHARS - report.chars().count();
        add_stack(&mut report, stack, &error.message, room);
    }
    report
}

/// Name and message. Lines after the first are indented, so that no message passes for the report's own words.
fn headline(error: &FailureError) -> String {
    let name = clean(&error.name).split_whitespace().collect::<Vec<_>>().join(" ");
    let message = clean(&error.message);
    let lines: Vec<&str> = message.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let message = lines.join("\n  ");
    match (&*name, &*message) {
        ("", _) => message,
        (_, "") => name,
        _ if name == message => name,
        _ => format!("{name}: {message}"),
    }
}

fn add_stack(report: &mut String, stack: &str, message: &str, room: usize) {
    let frames = frames(stack, message);
    if frames.is_empty() {
        // A proxy's answer, a language that is not read here, or only the message once more.
        let text = clean(stack);
        let lines: Vec<&str> =
            text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        if !lines.is_empty() && !without_message(stack, message).trim().is_empty() {
            let heading = "\nstack:\n    ";
            report.push_str(heading);
            report.push_str(&cut(&lines.join("\n    "), room - heading.len()));
        }
        return;
    }

    let (own, libraries): (Vec<&Frame<'_>>, Vec<&Frame<'_>>) =
        frames.iter().partition(|frame| frame.is_own);
    let mut room = room - MARK;
    let mut shown = 0;
    'all: for (heading, frames) in [("\nown code:", own), ("\nlibraries:", libraries)] {
        for (i, frame) in frames.into_iter().enumerate() {
            let heading = if i == 0 { heading } else { "" };
            let lines = lines(frame);
            let lines = cut(&lines, MAX_FRAME);
            let taken = heading.len() + lines.chars().count();
            if taken > room {
                break 'all;
            }
            room -= taken;
            report.push_str(heading);
            report.push_str(&lines);
            shown += 1;
        }
    }
    let left_out = frames.len() - shown;
    if left_out > 0 {
        report.push_str(&format!("\n    … [{left_out} {} left out]", plural(left_out, "frame")));
    }
}

/// The frame's lines, each after a line break, indented beneath a heading as they are to each other.
fn lines(frame: &Frame<'_>) -> String {
    let text = clean(frame.text);
    let indent = text.len() - text.trim_start().len();
    let line = |line: &str| {
        let (margin, rest) = line.split_at_checked(indent).unwrap_or(("", line));
        let line = if margin.trim().is_empty() { rest } else { line };
        format!("\n    {}", line.trim_end())
    };
    text.lines().filter(|line| !line.trim().is_empty()).map(line).collect()
}

fn plural(n: usize, what: &str) -> String {
    if n == 1 { what.to_owned() } else { format!("{what}s") }
}

/// The text, or as much of it as goes into `max` characters with a mark of how much is left out.
fn cut(text: &str, max: usize) -> Cow<'_, str> {
    let Some((end, _)) = text.char_indices().nth(max - MARK) else {
        return text.into();
    };
    let left_out = text[end..].chars().count();
    if left_out <= MARK {
        return text.into();
    }
    format!("{}… [{left_out} characters left out]", &text[..end]).into()
}

/// The text without anything that would play with a terminal or pass for another line: escape sequences, and
/// control characters other than a line's end. A tab is a space.
fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '\n' => cleaned.push('\n'),
            '\t' => cleaned.push(' '),
            '\u{1b}' => skip_sequence(&mut chars),
            '\u{9b}' => skip_control_sequence(&mut chars),
            char if is_obeyed(char) => {}
            char => cleaned.push(char),
        }
    }
    cleaned
}

/// Skips what belongs to an escape, by ECMA-48.
fn skip_sequence(chars: &mut Peekable<Chars<'_>>) {
    match chars.peek() {
        Some('[') => {
            chars.next();
            skip_control_sequence(chars);
        }
        // A title, a link: a text up to a terminator. Without one it might be all that there is to read.
        Some(']' | 'P' | 'X' | '^' | '_') => {
            chars.next();
            let mut ahead = chars.clone();
            loop {
                match ahead.next() {
                    Some('\u{7}' | '\u{9c}') => break,
                    Some('\u{1b}') if ahead.next_if_eq(&'\\').is_some() => break,
                    // Another escape ends it as well, so that nothing is looked at for each of many that have no end.
                    Some('\u{1b}' | '\n') | None => return,
                    Some(_) => {}
                }
            }
            *chars = ahead;
        }
        Some(' '..='/') => {
            while chars.next_if(|char| matches!(char, ' '..='/')).is_some() {}
            chars.next_if(|char| matches!(char, '0'..='~'));
        }
        Some('0'..='~') => {
            chars.next();
        }
        _ => {}
    }
}

/// Skips parameters and the letter that says what they are for, as in `31m`.
fn skip_control_sequence(chars: &mut Peekable<Chars<'_>>) {
    while chars.next_if(|char| matches!(char, ' '..='?')).is_some() {}
    chars.next_if(|char| matches!(char, '@'..='~'));
}

/// Whether a terminal might obey the character: it is a control character, or turns the direction of text.
pub(crate) fn is_obeyed(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::event::FailureEvent;

    fn recorded(file: &str) -> String {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
        let call = fs::read(folder.join(file)).unwrap();
        FailureEvent::from_slice(&call).unwrap().error().report()
    }

    fn error(error: Value) -> FailureError {
        let data = json!({ "function_id": "shop-checkout", "run_id": "r1", "error": error });
        let event = json!({ "name": "inngest/function.failed", "data": data });
        FailureEvent::try_from(event).unwrap().error()
    }

    /// The report of an error with this message and this stack.
    fn reported(message: &str, stack: &str) -> String {
        let report =
            error(json!({ "name": "CardError", "message": message, "stack": stack })).report();
        check(&report);
        report
    }

    /// What holds of every report.
    fn check(report: &str) {
        let chars = report.chars().count();
        assert!(chars <= FailureError::MAX_REPORT_CHARS, "{chars}: {report}");
        assert!(!report.chars().any(|char| char.is_control() && char != '\n'), "{report:?}");
        assert_eq!(report.trim_end(), report);
    }

    #[test]
    fn recorded_errors_of_javascript() {
        assert_eq!(
            recorded("function_failed/custom-error-nested-cause.js-v3.json"),
            "\
Error: outer
caused by: Error: middle
caused by: RangeError: inner
own code:
    at V1InngestExecution.userFnToRun (/srv/app/fns.js:24:88)
libraries:
    at /srv/app/node_modules/inngest/components/execution/v1.cjs:651:44
    at process.processTicksAndRejections (node:internal/process/task_queues:95:5)"
        );
        assert_eq!(
            recorded("function_failed/error-unicode-multiline.js-v4.json"),
            "\
Error: zażółć 🚀
  second line \"quoted\" <b>html</b> &  nul
own code:
    at InngestExecutionEngine.userFnToRun (/srv/app/fns.js:35:84)
libraries:
    at innerHandler (/srv/app/node_modules/inngest/components/execution/engine.cjs:1003:16)
    at process.processTicksAndRejections (node:internal/process/task_queues:95:5)"
        );
        // What was thrown was no error: the SDK made one of it.
        assert_eq!(
            recorded("function_failed/thrown-object-nomsg.js-v4.json"),
            "\
Error: {\"foo\":\"bar\",\"n\":1}
libraries:
    at /srv/app/node_modules/inngest/components/execution/engine.cjs:1014:46
    at process.processTicksAndRejections (node:internal/process/task_queues:95:5)"
        );
        assert_eq!(recorded("function_failed/error-no-stack.js-v3.json"), "Error: no stack here");
    }

    #[test]
    fn a_recorded_traceback_of_python() {
        assert_eq!(
            recorded("function_failed/plain-error.py.json"),
            "\
Exception: plain boom
own code:
    File \"/srv/app/app_py.py\", line 10, in f
      def f(ctx): raise Exception(\"plain boom\")
                  ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^"
        );
    }

    #[test]
    fn recorded_errors_that_are_not_the_programs() {
        assert_eq!(
            recorded("function_failed/http-500-html.json"),
            "\
Server returned a fatal error: Your server returned HTTP 500 before the SDK responded.
stack:
    No step output was produced before the request failed — this can mean a proxy or load balancer in front of \
             your app returned an error, or your app was unable to respond.
    Upstream response (text/html; charset=utf-8):
    <html><body><h1>500 Internal Server Error</h1></body></html>"
        );
        assert_eq!(recorded("function_failed/conn-reset.json"), "Error: Unable to reach SDK URL");
        assert_eq!(
            recorded("function_cancelled/cancel-api.js-v4.json"),
            "Cancelled: the run was cancelled"
        );
    }

    #[test]
    fn each_recorded_error_has_one() {
        let folder =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/function_failed");
        for file in fs::read_dir(folder).unwrap() {
            let call = fs::read(file.unwrap().path()).unwrap();
            let error = FailureEvent::from_slice(&call).unwrap().error();
            let report = error.report();
            check(&report);
            assert!(!report.contains("left out"), "{report}");
            let own = error.stack.is_some_and(|stack| stack.contains("/srv/app/fns.js"));
            assert_eq!(own, report.contains("\nown code:\n    at "), "{report}");
        }
    }

    #[test]
    fn without_a_stack_it_is_that_of_the_nearest_cause() {
        let cause = json!({ "name": "A", "message": "a", "stack": "A: a\n  at a (/srv/a.js:1:1)" });
        let error = error(json!({ "message": "b", "cause": { "message": "c", "cause": cause } }));
        assert_eq!(
            error.report(),
            "Error: b\ncaused by: Error: c\ncaused by: A: a\nown code:\n    at a (/srv/a.js:1:1)"
        );
    }

    #[test]
    fn a_name_and_a_message_are_not_said_twice() {
        let report = |name, message| FailureError::own(name, message).report();
        assert_eq!(report("Error", ""), "Error");
        assert_eq!(report("boom", "boom"), "boom");
        assert_eq!(report("", "boom"), "boom");
        assert_eq!(report("", ""), "");
        assert_eq!(reported("boom", "CardError: boom"), "CardError: boom");
    }

    #[test]
    fn many_causes_are_not_all_shown_but_the_last_is() {
        let mut chain = json!({ "message": "the root" });
        for i in (1..=5).rev() {
            chain = json!({ "message": format!("number {i}"), "cause": chain });
        }
        let chain = error(json!({ "message": "boom", "cause": chain }));
        assert_eq!(
            chain.report(),
            "\
Error: boom
caused by: Error: number 1
caused by: Error: number 2
… [3 causes left out]
caused by: Error: the root"
        );
    }

    #[test]
    fn what_is_too_long_is_cut_and_says_so() {
        let deep: String =
            (0..1_000).map(|i| format!("\n    at f{i} (/srv/app/deep.js:{i}:1)")).collect();
        let report = reported("boom", &format!("CardError: boom{deep}"));
        assert!(
            report.starts_with("CardError: boom\nown code:\n    at f0 (/srv/app/deep.js:0:1)\n")
        );
        let shown = report.matches("\n    at ").count();
        assert!(
            report.ends_with(&format!("\n    … [{} frames left out]", 1_000 - shown)),
            "{report}"
        );
        assert!(report.chars().count() > 1_900, "{report}");

        // One line, and characters of four bytes.
        let report = reported(&"🚀".repeat(5_000), &"🚀".repeat(100_000));
        let message = MAX_MESSAGE - MARK - "CardError: ".len();
        let left_out = 5_000 - message;
        let cut = format!(
            "CardError: {}… [{left_out} characters left out]\nstack:\n    🚀",
            "🚀".repeat(message)
        );
        assert!(report.starts_with(&cut), "{report}");
        assert!(report.ends_with(" characters left out]"), "{report}");

        // Own code is shown however much there is beside it.
        let long = "x".repeat(10_000);
        let mut cause = json!({ "message": long });
        for _ in 0..10 {
            cause = json!({ "message": long, "name": long, "cause": cause });
        }
        let stack =
            format!("    at {long} (/srv/node_modules/a.js:1:1)\n    at own (/srv/own.js:1:1)");
        let error = error(json!({ "message": long, "name": long, "cause": cause, "stack": stack }));
        check(&error.report());
        let end = "\nown code:\n    at own (/srv/own.js:1:1)\nlibraries:\n    at xxx";
        assert!(error.report().contains(end), "{}", error.report());
    }

    #[test]
    fn nothing_plays_with_the_terminal() {
        let says = |message: &str| reported(message, "").split_off("CardError: ".len());
        assert_eq!(says("a\u{1b}[31;1mred\u{1b}[0m\u{9b}2Jb"), "aredb");
        assert_eq!(
            says("a\u{1b}]0;title\u{7}b\u{1b}]8;;http://x\u{1b}\\c\u{1b}(Bd\u{1b}ce"),
            "abcde"
        );
        assert_eq!(
            says("a\u{1b}]0;the rest is there to be read"),
            "a0;the rest is there to be read"
        );
        assert_eq!(says("a\u{1b}[31"), "a");
        assert_eq!(says("\u{1b}\u{1b}[\u{1b}[31mx\u{1b}"), "x");
        assert_eq!(says("a\r\u{8}\u{0}\u{7f}\u{85}b\tc\u{202e}d\u{2028}e"), "ab cde");
        assert_eq!(says("a\r\n\r\n   caused by: b"), "a\n  caused by: b");
        assert_eq!(
            reported("m", "E: m\n    at \u{1b}[2J\u{1b}[31mf (/srv/a\rb.js:1:1)"),
            "CardError: m\nown code:\n    at f (/srv/ab.js:1:1)"
        );
        assert_eq!(FailureError::own("a\nb\u{1b}[1m", "c").report(), "a b: c");
    }

    #[test]
    fn a_large_error_takes_no_time() {
        let large = FailureEvent::MAX_BYTES / 16;
        for part in [
            "\u{1b}]",
            "\u{1b}[",
            "at \u{1b}]\n\u{1b}[ ",
            "at x\n",
            "0: x\n",
            "File \"x\", line 1\n",
            "\n",
        ] {
            let mut error = FailureError::own("Error", part.repeat(large / part.len() / 2));
            error.stack = Some(error.message.clone() + "\nx");
            check(&error.report());
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(
            message in "(\\PC|[\u{0}-\u{1f}\u{9b}]|at |\u{1b}\\[|\u{1b}\\]|\n){0,60}",
            stack in "(\\PC{0,9}|  at |File \"x\", line 1|1: |\u{1b}\\[3|\u{1b}\\]|\n|node:|Traceback \\(most|\u{7}|\r){0,300}",
        ) {
            let mut error = FailureError::own("Error", message.clone());
            error.stack = Some(stack);
            error.cause = Some(Box::new(FailureError::own("E", message.repeat(30))));
            check(&error.report());
        }
    }
}
