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

/// The shop in this folder, with these variables and arguments.
fn shop(folder: &Path, variables: &[(&str, &str)], args: &[&str], stdin: &[u8]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shop"));
    let inherited = std::env::vars_os().map(|(name, _)| name);
    for name in inherited.filter(|name| {
        let name = name.to_string_lossy();
        name.starts_with("SHOP_") || name.starts_with("INNGEST_")
    }) {
        command.env_remove(name);
    }
    let mut child = command
        .args(args)
        .envs(variables.iter().copied())
        .current_dir(folder)
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
    let folder = folder("own");
    let run = shop(&folder, &[], &[], b"");
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
    assert_eq!(fs::read_dir(folder).unwrap().count(), 0, "the demo leaves nothing behind");
}

#[test]
fn a_step_that_fails_is_tried_again_and_the_completed_one_is_not() {
    let run = shop(&folder("steps"), &[("SHOP_LOG", "info")], &[], b"");
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let logged = |run_id: &str, text: &str| {
        run.stderr.lines().filter(|line| line.contains(run_id) && line.contains(text)).count()
    };
    let surveys = "01M82E84E48HXQ3JNHENXMN4AX";
    assert_eq!(logged(surveys, "step failed, will be tried again"), 1, "{}", run.stderr);
    assert_eq!(logged(surveys, "the mail service has hung up"), 1);
    assert_eq!(logged(surveys, "the mail service sends it"), 3);

    // The undo of a step is a step itself.
    let checkout = "01M82KHGGM4VS44SRQQMJGT0D1";
    assert_eq!(logged(checkout, "step failed, will be tried again"), 1, "{}", run.stderr);
    assert_eq!(logged(checkout, "the payment provider is busy for 50ms"), 1);
    assert_eq!(logged(checkout, "the payment provider pays 49.90 EUR"), 1);
}

#[test]
fn traces_may_come_from_another_folder() {
    let run_id = "01M82KHGGM4VS44SRQQMJGT0D1";
    assert!(events()[0].contains(run_id));
    let folder = folder("traces");
    let run = || {
        let run = shop(
            &folder,
            &[("SHOP_TRACES", ".")],
            &["dispatch", "--no-ledger", "-"],
            events()[0].as_bytes(),
        );
        (run.code, run.stdout + &run.stderr)
    };
    let (code, text) = run();
    assert_eq!(code, Some(1));
    let fault = format!("there is no trace `./{run_id}.json`; put it there");
    for step in ["charge-card", "reserve-stock"] {
        let line = format!("/{step} failed for good after 0 attempts: {fault}");
        assert!(text.contains(&line), "{line}: {text}");
    }

    let file = format!("{run_id}.json");
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/traces").join(&file);
    // A charge that the shop knows nothing of is nothing that it gives back.
    let trace = fs::read_to_string(&own).unwrap();
    fs::write(folder.join(&file), trace.replace("ch_1001", "ch_9")).unwrap();
    let (code, text) = run();
    assert_eq!(code, Some(1));
    let fault =
        "/charge-card failed for good after 1 attempt: there is no charge `ch_9` in the books";
    assert!(text.contains(fault), "{text}");
    assert!(!text.contains("/reserve-stock failed"), "{text}");

    fs::copy(own, folder.join(&file)).unwrap();
    let (code, text) = run();
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn the_commands_list_the_handlers() {
    let run = shop(&folder("handlers"), &[], &["handlers"], b"");
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    let row = ["shop-checkout-rollback/charge-card ", "refund_card", " timeout 10s "];
    assert_eq!(run.rows(&row), 1, "{}", run.stdout);
    assert_eq!(run.rows(&["│ count ", "Count every failed or cancelled run"]), 1);
}

#[test]
fn the_functions_that_are_given_count_and_not_those_that_the_program_knows() {
    let folder = folder("functions");
    let check = |functions: &str| {
        fs::write(folder.join("functions.txt"), functions).unwrap();
        shop(&folder, &[], &["check", "--functions", "functions.txt"], b"")
    };
    let all = "shop-checkout\nshop-fulfil-order\nshop-send-receipt\ndepot-pick-parcel\n";
    let run = check(all);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{}", run.stdout);
    let run = check(&all.replace("fulfil", "fulfill"));
    assert_eq!(run.code, Some(2), "{}", run.stdout);
    assert!(run.stderr.contains("`shop-fulfill-order`"), "{}", run.stderr);
}

#[test]
fn what_fails_is_a_dead_letter_and_succeeds_once_its_cause_is_gone() {
    let folder = folder("letters");
    let events = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/events.jsonl");
    let dispatch = ["dispatch", events.to_str().unwrap()];
    let refund = "shop-checkout-rollback/charge-card ";

    let down = shop(&folder, &[("SHOP_PROVIDER", "down")], &dispatch, b"");
    assert_eq!(down.code, Some(1), "{}", down.stderr);
    // Two charges, of which one failure came twice.
    let fault = "failed for good after 5 attempts: the payment provider does not answer";
    assert_eq!(down.stderr.matches(fault).count(), 3, "{}", down.stderr);

    let list = shop(&folder, &[], &["dead-letters", "list"], b"");
    assert_eq!(list.rows(&[refund, "the payment provider does not answer"]), 2, "{}", list.stdout);
    assert!(
        list.stdout.ends_with("2 dead letters in shop-dead-letters.jsonl\n"),
        "{}",
        list.stdout
    );

    let retry = shop(&folder, &[], &["dead-letters", "retry", "--all"], b"");
    assert_eq!(retry.code, Some(0), "{}{}", retry.stdout, retry.stderr);
    assert!(retry.stdout.ends_with("2 succeeded, 0 failed\n"), "{}", retry.stdout);
    let list = shop(&folder, &[], &["dead-letters", "list"], b"");
    assert_eq!(list.stdout, "0 dead letters in shop-dead-letters.jsonl\n");

    // The ledger has it that all is done.
    let again = shop(&folder, &[], &dispatch, b"");
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    let database = rusqlite::Connection::open(folder.join("shop.db")).unwrap();
    let given_back = "SELECT count(*), sum(cents) FROM payments WHERE cents < 0";
    let refunds: (u32, i64) =
        database.query_row(given_back, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert_eq!(refunds, (2, -6240));
}

#[test]
fn a_handler_that_no_retry_helps_fails_at_once() {
    let folder = folder("no-retry");
    let unknown = events()[6].replace("o-1003", "o-9999");
    let run = shop(&folder, &[], &["dispatch", "--no-ledger", "-"], unknown.as_bytes());
    assert_eq!(run.code, Some(1));
    let fault =
        "announce-delay failed for good after 1 attempt: there is no order `o-9999` in the books";
    assert!(run.stderr.contains(fault), "{}", run.stderr);

    let unfit = events()[6].replace(r#""o-1003""#, "1003");
    let run = shop(&folder, &[], &["dispatch", "--no-ledger", "-"], unfit.as_bytes());
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("at `data.event.data.orderId`"), "{}", run.stderr);
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
        let run = shop(&folder, &[("SHOP_DATABASE", file)], &[], b"");
        assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""));
        let message = format!("error: cannot keep the books in `{file}`: {fault}; name a file");
        assert!(run.stderr.starts_with(&message), "{}", run.stderr);
        assert_eq!(fs::read(file).unwrap(), before);
    }
}

#[test]
fn the_books_last_and_nothing_is_paid_twice() {
    let folder = folder("books");
    let variables = [("SHOP_DATABASE", "shop.db")];
    let first = shop(&folder, &variables, &[], b"");
    let second = shop(&folder, &variables, &[], b"");
    assert_eq!((first.code, second.code), (Some(0), Some(0)), "{}", second.stderr);
    assert_eq!(first.rows(&["refunded ", "EUR"]), 2);
    assert_eq!(second.rows(&["refunded ", "EUR"]), 0, "{}", second.stdout);
    assert_eq!(second.rows(&["already refunded"]), 3, "{}", second.stdout);
    assert_eq!(second.books(), first.books());
}

#[test]
fn a_level_that_is_none_says_which_there_are() {
    let run = shop(&folder("level"), &[("SHOP_LOG", "loud")], &[], b"");
    assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""));
    assert!(
        run.stderr.starts_with("error: `SHOP_LOG` is no level; set it to `off`, "),
        "{}",
        run.stderr
    );
}
