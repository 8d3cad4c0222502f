//! A CEL expression that the user wrote, checked as far as can be told without evaluating it: the server
//! refuses one that it can't read, and drops runs by one that does not look at the event.

/// Checks an expression about the failure event, when the user's program is compiled.
///
/// # Panics
///
/// If the expression is blank, a quote or a bracket in it is not closed, or it does not look at `event`.
#[track_caller]
pub const fn check_expression(expression: &str) {
    crate::__private::check_text(expression);
    match fault(expression.as_bytes()) {
        None => {}
        Some(Fault::Quote) => panic!("a quote in this expression is not closed; close it"),
        Some(Fault::Bracket) => {
            panic!("the brackets in this expression do not match; close each one that is opened")
        }
        Some(Fault::Constant) => panic!(
            "this expression does not look at `event`, so that all failures are one to it; write it about the \
             failure event, such as `event.data.event.data.order_id`"
        ),
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Quote,
    Bracket,
    Constant,
}

const fn fault(text: &[u8]) -> Option<Fault> {
    const MAX_DEPTH: usize = 64;
    let mut closing = [0; MAX_DEPTH];
    let mut depth = 0;
    let mut sees_event = false;
    let mut follows_dot = false;
    let mut at = 0;
    while at < text.len() {
        let byte = text[at];
        match byte {
            b'\'' | b'"' => match after_string(text, at) {
                Some(end) => at = end,
                None => return Some(Fault::Quote),
            },
            b'(' | b'[' | b'{' => {
                if depth == MAX_DEPTH {
                    return Some(Fault::Bracket);
                }
                closing[depth] = if byte == b'(' { b')' } else { byte + 2 };
                depth += 1;
                at += 1;
            }
            b')' | b']' | b'}' => {
                if depth == 0 || closing[depth - 1] != byte {
                    return Some(Fault::Bracket);
                }
                depth -= 1;
                at += 1;
            }
            b'/' if at + 1 < text.len() && text[at + 1] == b'/' => at = after_line(text, at),
            _ if is_word(byte) => {
                let end = after_word(text, at);
                sees_event |= !follows_dot && is_event(text, at, end);
                at = end;
            }
            _ => at += 1,
        }
        if !byte.is_ascii_whitespace() {
            follows_dot = byte == b'.';
        }
    }
    if depth > 0 {
        Some(Fault::Bracket)
    } else if !sees_event {
        Some(Fault::Constant)
    } else {
        None
    }
}

/// Where a string literal ends that begins at `start`: in one quote or in three, raw after an `r`.
const fn after_string(text: &[u8], start: usize) -> Option<usize> {
    let quote = text[start];
    let is_raw = start > 0 && matches!(text[start - 1], b'r' | b'R');
    let count = if is_tripled(text, start) { 3 } else { 1 };
    let mut at = start + count;
    while at < text.len() {
        if text[at] == b'\\' && !is_raw {
            at += 2;
        } else if text[at] == b'\n' && count == 1 {
            return None;
        } else if text[at] == quote && (count == 1 || is_tripled(text, at)) {
            return Some(at + count);
        } else {
            at += 1;
        }
    }
    None
}

const fn is_tripled(text: &[u8], at: usize) -> bool {
    at + 2 < text.len() && text[at + 1] == text[at] && text[at + 2] == text[at]
}

/// Where a comment ends.
const fn after_line(text: &[u8], mut at: usize) -> usize {
    while at < text.len() && text[at] != b'\n' {
        at += 1;
    }
    at
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

const fn after_word(text: &[u8], mut at: usize) -> usize {
    while at < text.len() && is_word(text[at]) {
        at += 1;
    }
    at
}

const fn is_event(text: &[u8], start: usize, end: usize) -> bool {
    let (_, rest) = text.split_at(start);
    let (word, _) = rest.split_at(end - start);
    matches!(word, b"event")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(expression: &str, expected: Option<Fault>) {
        assert_eq!(fault(expression.as_bytes()), expected, "{expression}");
    }

    #[test]
    fn expressions_about_the_event_pass() {
        for expression in [
            "event.data.event.data.order_id",
            "event.data.function_id + '-' + string(event.ts)",
            r#"event.data["a]"] + "it's""#,
            r"event.id + 'don\'t ('",
            r"r'\' + event.id",
            "'''it's (''' + event.id",
            "event.id // it's",
            "has(event.user) ? event.user.id : [1, {'a': 2}][0]",
        ] {
            check(expression, None);
            assert!(cel::Program::compile(expression).is_ok(), "{expression}");
        }
    }

    #[test]
    fn what_the_server_could_not_read_is_refused() {
        for (expression, fault) in [
            ("event.id + 'x", Fault::Quote),
            ("event.id + 'x\n'", Fault::Quote),
            (r"event.id + 'x\'", Fault::Quote),
            ("event.id + '''x''", Fault::Quote),
            ("string(event.ts", Fault::Bracket),
            ("event.ids[0)", Fault::Bracket),
            ("event.id)", Fault::Bracket),
        ] {
            check(expression, Some(fault));
            assert!(cel::Program::compile(expression).is_err(), "{expression}");
        }
    }

    #[test]
    fn what_is_the_same_for_every_failure_is_refused() {
        for expression in
            ["'refund'", "1 + 1", "'event.id'", "events.id", "async.event", "event_id"]
        {
            check(expression, Some(Fault::Constant));
        }
    }
}
