//! The example `shop`, run as its users run it.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// What a run of the shop left.
struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Run {
    /// The rows that hold all of these texts.
    fn rows(&self, texts: &[&str]) -> usize {
        self.stdout.lines().filter(|line| texts.iter().all(|text| line.contains(text))).count()
    }

    /// Where the one row stands that holds all of these texts.
    fn row_of(&self, texts: &[&str]) -> usize {
        assert_eq!(self.rows(texts), 1, "{texts:?}: {}", self.stdout);
        let mut lines = self.stdout.lines();
        lines.position(|line| texts.iter().all(|text| line.contains(text))).unwrap()
    }

    /// What stands in the books, below the table.
    fn books(&self) -> &str {
        let start = self.stdout.find("refunds  ").expect("no books are shown");
        &self.stdout[start..]
    }
}

fn shop(args: &[&str], stdin: &[u8]) -> Run {
    let mut child = Command::new(env!("CARGO_BIN_EXE_shop"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A shop that reads no standard input may be gone by now.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    let output = child.wait_with_output().unwrap();
    Run {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The example's own events, a line each.
fn events() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/events.jsonl");
    fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

/// A folder that is empty, and the test's own.
fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn its_own_events_are_all_handled() {
    let run = shop(&[], b"");
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{}", run.stdout);

    // What had completed is undone, the last step first. The provider was busy once.
    let (refund, restock) =
        ("shop-checkout-rollback/charge-card ", "shop-checkout-rollback/reserve-stock ");
    assert_eq!(
        run.row_of(&["│ 1 ", refund, " 2 ", "refunded 49.90 EUR"]) + 1,
        run.row_of(&[restock, "restocked 3"])
    );
    assert_eq!(
        run.row_of(&["│ 2 ", refund, " 1 ", "refunded 12.50 EUR"]) + 1,
        run.row_of(&[restock, "restocked 1"])
    );
    // The same event a second time pays nothing.
    assert_eq!(
        run.row_of(&["│ 8 ", refund, " 1 ", "already refunded"]) + 1,
        run.row_of(&[restock, "already restocked"])
    );
    // One run had not come to the payment, another one not even to the stock.
    assert_eq!(
        run.row_of(&["│ 9 ", restock, " 1 ", "restocked 2"]) + 1,
        run.row_of(&["│      ", refund, " 0 ", "had not completed"])
    );
    assert_eq!(
        run.row_of(&["│ 10 ", refund, " 0 ", "had not completed"]) + 1,
        run.row_of(&[restock, " 0 ", "had not completed"])
    );

    // The message that a person needs, whatever its shape on the wire.
    for why in ["custom boom", "Unable to reach SDK URL", "kaboom", "the run was cancelled"] {
        assert!(run.rows(&[why]) >= 1, "{why}: {}", run.stdout);
    }
    assert_eq!(run.rows(&["alert ", "sent"]), 2);
    // The mail service hung up once.
    assert_eq!(run.rows(&["resend ", " 2 ", "sent 3 of 3"]), 1);

    let books = run.books();
    for line in [
        "refunds         2, 62.40 EUR given back\n",
        "units restocked 13\n",
        "mails           6\n",
        "alerts          2\n",
        "failed runs     12\n",
        "4 of shop-checkout\n",
    ] {
        assert!(books.contains(line), "{line:?} is not in {books}");
    }
}

#[test]
fn a_step_that_fails_is_tried_again_and_the_completed_one_is_not() {
    let run = shop(&["-v", "-"], events()[2].as_bytes());
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let logged = |text: &str| run.stderr.lines().filter(|line| line.contains(text)).count();
    assert_eq!(logged("step failed, will be tried again"), 1, "{}", run.stderr);
    assert_eq!(logged("the mail service has hung up"), 1);
    assert_eq!(logged("the mail service sends it"), 3);

    // The undo of a step is a step itself.
    let run = shop(&["-v", "-"], events()[0].as_bytes());
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let logged = |text: &str| run.stderr.lines().filter(|line| line.contains(text)).count();
    assert_eq!(logged("step failed, will be tried again"), 1, "{}", run.stderr);
    assert_eq!(logged("the payment provider is busy for 50ms"), 1);
    assert_eq!(logged("the payment provider pays 49.90 EUR"), 1);
}

#[test]
fn traces_may_come_from_another_folder() {
    let run_id = "01M82KHGGM4VS44SRQQMJGT0D1";
    assert!(events()[0].contains(run_id));
    let folder = folder("traces");
    let args = ["--traces", folder.to_str().unwrap(), "-"];
    let missing = shop(&args, events()[0].as_bytes());
    assert_eq!(missing.code, Some(1));
    let fault = format!("failed: there is no trace `{}", folder.display());
    for step in ["charge-card ", "reserve-stock "] {
        assert_eq!(missing.rows(&[step, " 0 ", &fault]), 1, "{}", missing.stdout);
    }

    let file = format!("{run_id}.json");
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/traces").join(&file);
    fs::copy(own, folder.join(&file)).unwrap();
    let run = shop(&args, events()[0].as_bytes());
    assert_eq!(run.code, Some(0), "{}", run.stdout);
    assert_eq!(run.rows(&["refunded 49.90 EUR"]), 1, "{}", run.stdout);

    // A charge that the shop knows nothing of is nothing that it gives back.
    let trace = fs::read_to_string(folder.join(&file)).unwrap();
    fs::write(folder.join(&file), trace.replace("ch_1001", "ch_9")).unwrap();
    let run = shop(&args, events()[0].as_bytes());
    assert_eq!(run.code, Some(1));
    let fault = "failed: there is no charge `ch_9` in the books; enter it first";
    assert_eq!(run.rows(&["charge-card ", " 1 ", fault]), 1, "{}", run.stdout);
    assert_eq!(run.rows(&["reserve-stock ", " 1 ", "restocked 3"]), 1, "{}", run.stdout);
}

#[test]
fn its_own_events_may_come_in_any_form() {
    let lines = events().join("\n");
    let array = format!("[{}]", events().join(","));
    let values: Vec<serde_json::Value> = serde_json::from_str(&array).unwrap();
    let pretty = serde_json::to_string_pretty(&values).unwrap();

    let expected = shop(&[], b"");
    for text in [lines, array, pretty] {
        let run = shop(&["-"], text.as_bytes());
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
        assert_eq!(run.books(), expected.books());
    }
}

#[test]
fn one_event_may_be_printed_over_several_lines() {
    let event: serde_json::Value = serde_json::from_str(&events()[0]).unwrap();
    let pretty = format!("\n{}\n", serde_json::to_string_pretty(&event).unwrap());
    let run = shop(&["-"], pretty.as_bytes());
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(run.rows(&["│ 2 ", "shop-checkout"]), 1, "{}", run.stdout);
}

#[test]
fn a_recorded_call_body_is_read() {
    let recordings = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/");
    let call = recordings.join("function_failed/plain-error.js-v4.json");
    let cancelled = recordings.join("function_cancelled/cancel-api.js-v4.json");
    let run = shop(&[call.to_str().unwrap(), cancelled.to_str().unwrap()], b"");
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{}", run.stdout);
    // No handler of the shop names the function: the team is told.
    assert_eq!(run.rows(&["plain-error.js-v4.json:1", "cap4-plain-error", "alert "]), 1);
    assert_eq!(run.rows(&["cancel-api.js-v4.json:1", "cap4-cancel-api", "alert "]), 1);
}

#[test]
fn a_bad_line_is_reported_with_its_number_and_skipped() {
    let events = events();
    let other = r#"{"name":"shop/order.placed","data":{"function_id":"f"}}"#;
    let lines = [r#"{"name":"#, "", &events[0], "nonsense", other, r#"[{"name":1}]"#, &events[1]];
    let run = shop(&["-"], lines.join("\n").as_bytes());
    assert_eq!(run.code, Some(1));
    let faults: Vec<&str> = run.stderr.lines().collect();
    assert_eq!(faults.len(), 4, "{}", run.stderr);
    assert!(faults[0].starts_with("stdin:1: not JSON: EOF"), "{}", faults[0]);
    assert_eq!(faults[1], "stdin:4: not JSON: expected ident at column 2");
    assert!(
        faults[2].starts_with(r#"stdin:5: not a failure event: `name` is "shop/order.placed""#),
        "{}",
        faults[2]
    );
    assert!(faults[3].starts_with("stdin:6[0]: not a failure event"), "{}", faults[3]);
    assert_eq!(run.rows(&["│ 3 ", "shop-checkout"]), 1, "{}", run.stdout);
    assert_eq!(run.rows(&["│ 7 ", "shop-checkout"]), 1, "{}", run.stdout);
}

#[test]
fn a_broken_document_is_one_fault() {
    let event: serde_json::Value = serde_json::from_str(&events()[0]).unwrap();
    let pretty = serde_json::to_string_pretty(&event).unwrap();
    let run = shop(&["-"], &pretty.as_bytes()[..pretty.len() / 2]);
    assert_eq!(run.code, Some(1));
    assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    assert!(run.stderr.starts_with("stdin:1: not JSON: EOF"), "{}", run.stderr);
    assert!(run.stdout.starts_with("no failure events\n"), "{}", run.stdout);
}

#[test]
fn a_line_that_is_too_long_is_skipped() {
    let long = "x".repeat(inngest_failure::FailureEvent::MAX_BYTES + 1);
    let text = format!("{long}\n{}\n{long}", events()[0]);
    let run = shop(&["-"], text.as_bytes());
    assert_eq!(run.code, Some(1));
    let faults: Vec<&str> = run.stderr.lines().collect();
    assert_eq!(faults.len(), 2, "{}", run.stderr);
    assert!(faults[0].starts_with("stdin:1: longer than the 4194304 bytes"), "{}", faults[0]);
    assert!(faults[1].starts_with("stdin:3: longer than the 4194304 bytes"), "{}", faults[1]);
    assert_eq!(run.rows(&["│ 2 ", "shop-checkout"]), 1, "{}", run.stdout);
}

#[test]
fn a_handler_that_fails_stands_in_the_table() {
    let unknown = events()[6].replace("o-1003", "o-9999");
    let unfit = events()[6].replace(r#""o-1003""#, "1003");
    let run = shop(&["-"], format!("{unknown}\n{unfit}").as_bytes());
    assert_eq!(run.code, Some(1));
    let fault = "failed: there is no order `o-9999` in the books; enter it first";
    assert_eq!(run.rows(&["announce-delay ", " 1 ", fault]), 1, "{}", run.stdout);
    let fault = "at `data.event.data.orderId`";
    assert_eq!(run.rows(&["announce-delay ", " 1 ", fault]), 1, "{}", run.stdout);
    assert!(run.books().contains("mails           0\n"), "{}", run.stdout);
}

#[test]
fn no_event_plays_with_the_terminal() {
    let event = events()[6].replace("custom boom", r"a\u001b[31mred\nboom");
    let run = shop(&["-"], event.as_bytes());
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(run.rows(&["┆ a [31mred boom "]), 1, "{}", run.stdout);
}

#[test]
fn nothing_runs_if_a_file_is_missing() {
    let database = folder("missing").join("shop.db");
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/events.jsonl");
    let run = shop(
        &["--database", database.to_str().unwrap(), own.to_str().unwrap(), "missing.jsonl"],
        b"",
    );
    assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""));
    assert!(run.stderr.starts_with("error: cannot read `missing.jsonl`: "), "{}", run.stderr);
    assert!(run.stderr.ends_with("; name a file of failure events, or `-`\n"), "{}", run.stderr);
    assert!(!database.exists());
}

#[test]
fn a_file_of_something_else_is_left_alone() {
    let folder = folder("no-database");
    let prose = folder.join("prose.db");
    fs::write(&prose, "the shop's books, in prose ".repeat(100)).unwrap();
    let other = folder.join("other.db");
    let db = rusqlite::Connection::open(&other).unwrap();
    db.execute_batch("CREATE TABLE orders (id)").unwrap();
    for (file, fault) in
        [(&prose, "file is not a database"), (&other, "it is another program's database")]
    {
        let before = fs::read(file).unwrap();
        let file = file.to_str().unwrap();
        let run = shop(&["--database", file], b"");
        assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""));
        let message = format!("error: cannot keep the books in `{file}`: {fault}; name a file");
        assert!(run.stderr.starts_with(&message), "{}", run.stderr);
        assert_eq!(fs::read(file).unwrap(), before);
    }
}

#[test]
fn the_books_last_and_nothing_is_paid_twice() {
    let database = folder("books").join("shop.db");
    let args = ["--database", database.to_str().unwrap()];
    let first = shop(&args, b"");
    let second = shop(&args, b"");
    assert_eq!((first.code, second.code), (Some(0), Some(0)), "{}", second.stderr);
    assert_eq!(first.rows(&["refunded ", "EUR"]), 2);
    assert_eq!(second.rows(&["refunded ", "EUR"]), 0, "{}", second.stdout);
    assert_eq!(second.rows(&["already refunded"]), 3, "{}", second.stdout);
    assert_eq!(second.books(), first.books());
}

#[test]
fn the_help_names_the_exit_status() {
    let run = shop(&["--help"], b"");
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    for text in
        ["[FILES]...", "--traces <FOLDER>", "--database <FILE>", "--verbose", "Exit status:"]
    {
        assert!(run.stdout.contains(text), "{text}: {}", run.stdout);
    }
    assert_eq!(shop(&["--no-such-option"], b"").code, Some(2));
}
