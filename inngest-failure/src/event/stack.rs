//! Stack traces of JavaScript, Python and Rust, frame by frame.

/// A call in a stack trace.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Frame<'a> {
    /// Its line, with the lines that belong to it.
    pub(super) text: &'a str,
    /// Whether it is in the program's own code, not in a library or the runtime.
    pub(super) is_own: bool,
}

/// How a frame begins.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// `at fn (file:1:2)`, of JavaScript.
    At,
    /// `File "..", line 1, in f`, of Python; the source's line follows.
    File,
    /// `0: path::of::function`, of Rust; `at file:1:2` follows.
    Numbered,
}

/// What the place of a frame has in it that is in no program's own code.
const LIBRARIES: &[&str] = &[
    // JavaScript
    "/node_modules/",
    "/.yarn/",
    "node:",
    "deno:",
    "bun:",
    "ext:",
    "(internal/",
    "at internal/",
    "internal/process",
    "(<anonymous>)",
    "(native)",
    "(index ",
    // Python
    "/site-packages/",
    "/dist-packages/",
    "/lib/python",
    "\"<frozen ",
    // Rust
    "/.cargo/registry/",
    "/.cargo/git/",
    "/rustc/",
    "/rustlib/src/",
];

/// How functions of Rust are named that are in no program's own code.
const LIBRARY_FUNCTIONS: &[&str] =
    &["std::", "core::", "alloc::", "<std::", "<core::", "<alloc::", "rust_", "__", "_start"];

/// Lines that say how to read the others.
const HEADINGS: &[&str] = &[
    "Traceback (most recent call last):",
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
    "stack backtrace:",
    "note: ",
];

/// The frames of a stack, the most recent call first; none if it is some other text.
///
/// What a stack says of the error itself, which `message` is the text of, is left out.
pub(super) fn frames<'a>(stack: &'a str, message: &str) -> Vec<Frame<'a>> {
    let stack = without_message(stack, message);
    let mut places = Vec::new();
    let mut last = None;
    let mut start = 0;
    for line in stack.split_inclusive('\n') {
        let end = start + line.len();
        let text = line.trim();
        match kind(text) {
            // The place of a function that is named in the line before.
            Some(Kind::At) if last == Some(Kind::Numbered) => {
                extend(&mut places, end);
                last = Some(Kind::At);
            }
            Some(kind) => {
                places.push((kind, start..end));
                last = Some(kind);
            }
            None if text.is_empty() || HEADINGS.iter().any(|other| text.starts_with(other)) => {
                last = None;
            }
            // What follows a frame belongs to it; what stands before the first is the error's.
            None if last.is_some() => extend(&mut places, end),
            None => {}
        }
        start = end;
    }
    // Only Python has the most recent call last.
    if places.first().is_some_and(|(kind, _)| *kind == Kind::File) {
        places.reverse();
    }
    let frame = |(kind, place): (Kind, std::ops::Range<usize>)| {
        let text = stack[place].trim_end();
        Frame { text, is_own: is_own(kind, text) }
    };
    places.into_iter().map(frame).collect()
}

fn extend(places: &mut [(Kind, std::ops::Range<usize>)], end: usize) {
    if let Some((_, place)) = places.last_mut() {
        place.end = end;
    }
}

/// The stack without the error's text, which stands above it in JavaScript and below it in Python. A text of several
/// lines might pass for frames.
pub(super) fn without_message<'a>(stack: &'a str, message: &str) -> &'a str {
    let stack = stack.trim_end();
    let message = message.trim_end();
    if message.is_empty() {
        return stack;
    }
    if let Some(above) = stack.strip_suffix(message)
        && let Some(line_end) = above.rfind('\n')
    {
        return &above[..line_end];
    }
    match stack.split_once(message) {
        // A first line that is a frame may have the message in it for another reason.
        Some((name, below)) if !name.contains('\n') && kind(stack.trim_start()).is_none() => below,
        _ => stack,
    }
}

fn kind(line: &str) -> Option<Kind> {
    if line.starts_with("at ") {
        return Some(Kind::At);
    }
    if line.starts_with("File \"") && line.contains("\", line ") {
        return Some(Kind::File);
    }
    let number = line.bytes().take_while(u8::is_ascii_digit).count();
    (number > 0 && line[number..].starts_with(": ")).then_some(Kind::Numbered)
}

fn is_own(kind: Kind, text: &str) -> bool {
    let place = match kind {
        // What follows is source code, which may say anything.
        Kind::At | Kind::File => text.lines().next().unwrap_or_default(),
        Kind::Numbered => text,
    };
    let place = place.replace('\\', "/");
    if LIBRARIES.iter().any(|library| place.contains(library)) {
        return false;
    }
    let function = match kind {
        Kind::Numbered => place.trim_start().split_once(": ").map(|(_, function)| function),
        Kind::At | Kind::File => None,
    };
    !function.is_some_and(|function| {
        let function = function.trim_start();
        // `0x5581c0a2 - std::..`
        let named = function.starts_with("0x").then(|| function.split_once(" - ")).flatten();
        let function = named.map_or(function, |(_, function)| function);
        LIBRARY_FUNCTIONS.iter().any(|library| function.starts_with(library))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The frames, those of libraries in brackets.
    fn shown(stack: &str, message: &str) -> Vec<String> {
        let shown = |frame: Frame<'_>| {
            let lines: Vec<&str> = frame.text.lines().map(str::trim).collect();
            let lines = lines.join(" | ");
            if frame.is_own { lines } else { format!("[{lines}]") }
        };
        frames(stack, message).into_iter().map(shown).collect()
    }

    #[test]
    fn javascript() {
        let stack = "\
TypeError: a is not a function
    at checkout (C:\\srv\\app\\checkout.js:1:2)
    at C:\\srv\\app\\node_modules\\inngest\\index.js:3:4
    at async Promise.all (index 0)
    at Array.map (<anonymous>)
    at async file:///srv/app/main.mjs:5:6
    at internal/process/next_tick.js:7:8
    at Module._compile (node:internal/modules/cjs/loader:1256:14)
    at ext:core/01_core.js:9:10";
        assert_eq!(
            shown(stack, "a is not a function"),
            [
                r"at checkout (C:\srv\app\checkout.js:1:2)",
                r"[at C:\srv\app\node_modules\inngest\index.js:3:4]",
                "[at async Promise.all (index 0)]",
                "[at Array.map (<anonymous>)]",
                "at async file:///srv/app/main.mjs:5:6",
                "[at internal/process/next_tick.js:7:8]",
                "[at Module._compile (node:internal/modules/cjs/loader:1256:14)]",
                "[at ext:core/01_core.js:9:10]",
            ]
        );
    }

    #[test]
    fn python_is_turned_round_and_keeps_its_pairs() {
        let stack = "\
Traceback (most recent call last):
  File \"/srv/app/stock.py\", line 3, in reserve
    return shelf[\"node:\"]
           ~~~~~^^^^^^^^^
KeyError: 'node:'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File \"/usr/lib/python3.12/site-packages/inngest/_internal/step.py\", line 9, in run
    return await handler()
  File \"/srv/app/checkout.py\", line 7, in checkout
    raise OutOfStock(\"none\\nleft\")
app.OutOfStock: none
left
";
        assert_eq!(
            shown(stack, "none\nleft"),
            [
                "File \"/srv/app/checkout.py\", line 7, in checkout | raise OutOfStock(\"none\\nleft\")",
                "[File \"/usr/lib/python3.12/site-packages/inngest/_internal/step.py\", line 9, in run | \
                 return await handler()]",
                "File \"/srv/app/stock.py\", line 3, in reserve | return shelf[\"node:\"] | ~~~~~^^^^^^^^^ | \
                 KeyError: 'node:'",
            ]
        );
    }

    #[test]
    fn rust() {
        let stack = "\
stack backtrace:
   0: rust_begin_unwind
             at /rustc/05f9846f8/library/std/src/panicking.rs:665:5
   1: core::panicking::panic_fmt
   2: shop::checkout::{{closure}}
             at ./src/checkout.rs:12:5
   3: tokio::runtime::task::core::Core<T,S>::poll
             at /home/ci/.cargo/registry/src/x/tokio-1.45.0/src/core.rs:331:17
   4:     0x5581c0a2 - std::rt::lang_start
   5: shop::main
  10: main
note: Some details are omitted, run with `RUST_BACKTRACE=full` for a verbose backtrace.";
        assert_eq!(
            shown(stack, "card declined"),
            [
                "[0: rust_begin_unwind | at /rustc/05f9846f8/library/std/src/panicking.rs:665:5]",
                "[1: core::panicking::panic_fmt]",
                "2: shop::checkout::{{closure}} | at ./src/checkout.rs:12:5",
                "[3: tokio::runtime::task::core::Core<T,S>::poll | at /home/ci/.cargo/registry/src/\
                 x/tokio-1.45.0/src/core.rs:331:17]",
                "[4:     0x5581c0a2 - std::rt::lang_start]",
                "5: shop::main",
                "10: main",
            ]
        );
    }

    #[test]
    fn a_message_does_not_pass_for_frames() {
        let message = "1: no\n    at all (/srv/app/fake.js:1:1)";
        let stack = format!("Error: {message}\n    at real (/srv/app/real.js:1:1)");
        assert_eq!(shown(&stack, message), ["at real (/srv/app/real.js:1:1)"]);
        let stack =
            format!("Traceback\n  File \"a.py\", line 1, in f\n    f()\nError: {message}\n");
        assert_eq!(shown(&stack, message), ["File \"a.py\", line 1, in f | f()"]);
        assert_eq!(shown("  at fail (/srv/app/a.js:1:1)", "fail"), ["at fail (/srv/app/a.js:1:1)"]);
    }

    #[test]
    fn other_texts_have_no_frames() {
        for text in
            ["", "\n", "Error: x", "a proxy says:\n<html>\n</html>", "File \"a\"", "12:", "at"]
        {
            assert_eq!(shown(text, "x"), [""; 0], "{text:?}");
        }
    }
}
