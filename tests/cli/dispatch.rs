//! `dispatch`: every form of input, and that nothing runs twice.

use std::{fs, path::Path, process::Stdio};

use rusqlite::Connection;

use crate::{LEDGER, Place, checkouts, done_for, failure, failure_at, row, until};

#[test]
fn events_come_in_lines_arrays_documents_and_calls() {
    let place = Place::new();
    let one = |n| failure("shop-checkout", n);
    let document: serde_json::Value = serde_json::from_str(&one(3)).unwrap();
    place.write("lines", &(one(0) + "\n" + &one(1)));
    place.write("single", one(2).trim());
    place.write("pretty", &serde_json::to_string_pretty(&document).unwrap());
    place.write("array", &format!("[{},\n {}]\n[]\n[{}]", one(4), one(5), one(6)));
    let call = format!(
        r#"{{"version":1,"ctx":{{"attempt":0}},"event":{},"events":[],"steps":{{}}}}"#,
        one(7)
    );
    place.write("call", &call);
    place.write("end of line", &one(8).replace('\n', "\r\n"));
    place.write("empty", "");
    let files = ["lines", "single", "pretty", "array", "call", "end of line", "empty"];
    let args: Vec<&str> = ["dispatch"].into_iter().chain(files).collect();
    let ended = place.run(&args);
    assert_eq!(row(ended.well(), "shop-checkout-failure"), ["9", "0", "0", "0", "9"]);
    assert!(ended.out.ends_with("\n9 failure events\n"), "{ended:?}");
    assert_eq!(place.effects_once(), done_for(0..9));
}

/// What Inngest's servers had sent: bodies of calls, and failure events alone.
#[test]
fn recordings_are_read() {
    let place = Place::new();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let mut failures = 0;
    let mut files = Vec::new();
    for folder in ["calls", "function_failed", "function_cancelled"] {
        for file in fs::read_dir(fixtures.join(folder)).unwrap() {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let json: serde_json::Value =
                serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            // A recorded call is the request and its answer; what an operator has is the body.
            let body = &json["request"]["body"];
            let json =
                if folder == "calls" { body.get("json").unwrap_or(body).clone() } else { json };
            let event = json.get("event").unwrap_or(&json);
            failures +=
                usize::from(event["name"].as_str().unwrap().starts_with("inngest/function."));
            place.write(&name, &json.to_string());
            files.push(name);
        }
    }
    assert!(failures > 30 && failures < files.len(), "{failures} of {}", files.len());
    let args: Vec<&str> =
        ["dispatch", "--dry-run"].into_iter().chain(files.iter().map(String::as_str)).collect();
    let ended = place.run(&args);
    let others = files.len() - failures;
    let sum = ended.well().lines().last().unwrap().to_owned();
    assert!(sum.starts_with(&format!("{failures} failure events, ")), "{sum}");
    assert!(sum.ends_with(&format!("{others} of another kind and skipped")), "{sum}");
    assert_eq!(place.effects().len(), 0);
}

#[test]
fn standard_input_is_read_among_files() {
    let place = Place::new();
    place.write("a", &failure("shop-checkout", 0));
    place.write("b", &failure("shop-checkout", 2));
    let input = failure("shop-checkout", 1) + "oops";
    let ended = place.run_with_input(&["dispatch", "a", "-", "b"], &input);
    assert_eq!(ended.failed(), "stdin:2: not JSON: expected value at column 1\n");
    assert_eq!(place.effects_once(), done_for(0..3));
}

#[test]
fn a_broken_line_costs_no_other() {
    let place = Place::new();
    let torn = &failure("shop-checkout", 9)[..70];
    let text = format!(
        "{}{torn}\n{}{{\"name\":\"inngest/function.failed\"}}\n{}[{},oops]\n{}",
        failure("shop-checkout", 0),
        failure("shop-checkout", 1),
        failure("shop-checkout", 2),
        failure("shop-checkout", 3).trim(),
        failure("shop-checkout", 4),
    );
    place.write("f", &text);
    let ended = place.run(&["dispatch", "f"]);
    let lines: Vec<&str> = ended.failed().lines().collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].starts_with("f:2: not JSON: "), "{lines:?}");
    assert!(lines[1].starts_with("f:4: "), "{lines:?}");
    assert!(lines[2].starts_with("f:6[1]: not JSON: "), "{lines:?}");
    assert!(lines[2].ends_with("; the rest of the array is not read"), "{lines:?}");
    assert!(ended.out.ends_with("\n5 failure events, 3 not readable\n"), "{ended:?}");
    assert_eq!(place.effects_once(), done_for(0..5));
}

#[test]
fn what_no_handler_takes_is_told() {
    let place = Place::new();
    place
        .write("f", &(failure("shop-other", 0) + "{\"name\":\"shop/order.placed\",\"data\":{}}\n"));
    let ended = place.run(&["dispatch", "f"]);
    assert_eq!(
        ended.failed(),
        "f:1, run r0: unhandled: no handler that names the function takes it, and no fallback\n"
    );
    assert!(
        ended.out.ends_with("\n1 failure event, 1 unhandled, 1 of another kind and skipped\n"),
        "{ended:?}"
    );
    // One that takes every failure runs all the same.
    assert_eq!(place.effects_once(), ["count r0"]);
    let ended = place.run(&["dispatch", "--dry-run", "f"]);
    assert!(
        ended.well().starts_with("f:1: shop-other, run r0: done before: count; unhandled\n"),
        "{ended:?}"
    );
}

#[test]
fn a_dry_run_runs_nothing_and_makes_no_file() {
    let place = Place::with_letters();
    place.write("letters", "");
    place.write("f", &(failure("shop-checkout", 0) + &failure("shop-slow", 1)));
    let before = place.files();
    let ended = place.run(&["dispatch", "--dry-run", "f"]);
    assert_eq!(
        ended.well(),
        "\
f:1: shop-checkout, run r0: count, shop-checkout-failure
f:2: shop-slow, run r1: count, shop-slow-failure
┌───────────────────────┬───────────┬─────────────┐
│ handler               ┆ would run ┆ done before │
╞═══════════════════════╪═══════════╪═════════════╡
│ count                 ┆ 2         ┆ 0           │
│ shop-checkout-failure ┆ 1         ┆ 0           │
│ shop-slow-failure     ┆ 1         ┆ 0           │
└───────────────────────┴───────────┴─────────────┘
2 failure events
"
    );
    assert_eq!(place.files(), before);

    // With a ledger it knows what was done.
    place.run(&["dispatch", "--only", "count", "f"]).well();
    let (before, rows) = (place.files(), fs::read(place.path(LEDGER)).unwrap());
    let ended = place.run(&["dispatch", "--dry-run", "f"]);
    assert!(
        ended
            .well()
            .starts_with("f:1: shop-checkout, run r0: shop-checkout-failure; done before: count\n"),
        "{ended:?}"
    );
    assert_eq!((place.files(), fs::read(place.path(LEDGER)).unwrap()), (before, rows));
    assert_eq!(place.effects_once(), ["count r0", "count r1"]);
}

#[test]
fn only_some_handlers_run() {
    let place = Place::new();
    place.write("f", &(checkouts(2) + &failure("shop-other", 2)));
    place.run(&["dispatch", "f", "--only", "shop-checkout-failure", "--only", "report"]).well();
    assert_eq!(place.effects_once(), ["refund o0", "refund o1", "tell o0", "tell o1"]);
    // What was left out is not done.
    let ended = place.run(&["dispatch", "f", "--only", "count"]);
    assert_eq!(row(ended.well(), "count"), ["3", "0", "0", "0", "3"]);
    assert_eq!(place.effects_once().len(), 7);
}

#[test]
fn older_failures_are_left_out() {
    let place = Place::new();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now = u64::try_from(now.as_millis()).unwrap();
    let text: String =
        (0..4).map(|n| failure_at("shop-checkout", n as usize, now - n * 3_600_000)).collect();
    place.write("f", &text);
    let ended = place.run(&["dispatch", "f", "--since", "90m"]);
    assert!(ended.well().ends_with("\n2 failure events, 2 older and left out\n"), "{ended:?}");
    assert_eq!(place.effects_once(), done_for(0..2));
    let ended = place.run(&["dispatch", "f", "--since", "2020-01-01T00:00:00Z"]);
    assert_eq!(row(ended.well(), "count"), ["2", "0", "0", "2", "2"]);
    assert_eq!(place.effects_once(), done_for(0..4));
}

#[test]
fn a_repeated_run_runs_nothing_twice() {
    let place = Place::new();
    place.write("f", &checkouts(20));
    place.run(&["dispatch", "f"]).well();
    let ended = place.run(&["dispatch", "f"]);
    assert_eq!(row(ended.well(), "shop-checkout-failure"), ["0", "0", "0", "20", "0"]);
    assert_eq!(place.effects_once(), done_for(0..20));
    // Nothing is left beside the ledger that belongs to it: it can be copied.
    assert_eq!(place.files(), ["effects", "f", LEDGER]);
    // Without a ledger it begins anew.
    place.run(&["dispatch", "f", "--no-ledger"]).well();
    assert_eq!(place.effects()["refund o7"], 2);
}

#[test]
fn a_failed_handler_goes_on_without_its_completed_steps() {
    let place = Place::with_letters();
    place.write("f", &checkouts(5));
    place.breaks("tell");
    let ended = place.run(&["dispatch", "f"]);
    assert_eq!(row(&ended.out, "shop-checkout-failure"), ["0", "5", "0", "0", "10"]);
    let ended = place.run(&["dispatch", "f"]);
    assert_eq!(row(&ended.out, "shop-checkout-failure"), ["0", "5", "0", "0", "10"]);
    assert_eq!(row(&ended.out, "count"), ["0", "0", "0", "5", "0"]);
    let list = place.run(&["dead-letters", "list"]);
    assert!(list.well().ends_with("\n5 dead letters in letters\n"), "{list:?}");
    place.breaks("");
    let ended = place.run(&["dispatch", "f"]);
    assert_eq!(row(ended.well(), "shop-checkout-failure"), ["5", "0", "0", "0", "5"]);
    // The letters are taken back.
    assert_eq!(place.run(&["dead-letters", "list"]).well(), "0 dead letters in letters\n");
    assert_eq!(place.effects_once(), done_for(0..5));
}

#[test]
fn one_event_many_times_in_one_file_runs_once() {
    let place = Place::new();
    let text: String = (0..200).map(|n| failure("shop-checkout", n % 4)).collect();
    place.write("f", &text);
    let ended = place.run(&["dispatch", "f", "--concurrency", "64"]);
    assert_eq!(row(ended.well(), "shop-checkout-failure"), ["4", "0", "0", "196", "4"]);
    assert_eq!(place.effects_once(), done_for(0..4));
}

#[test]
fn what_is_rate_limited_runs_another_time() {
    let place = Place::new();
    place.write("f", &(0..3).map(|n| failure("shop-report-x", n)).collect::<String>());
    let ended = place.run(&["dispatch", "f"]);
    assert_eq!(row(&ended.out, "report"), ["1", "0", "2", "0", "1"]);
    assert!(ended.failed().contains("report "), "{ended:?}");
    let ended = place.run(&["dispatch", "f"]);
    assert_eq!(row(&ended.out, "report"), ["1", "0", "1", "1", "1"]);
    place.run(&["dispatch", "f"]).well();
    assert_eq!(place.effects_once().len(), 6);
}

#[test]
fn a_second_process_on_the_same_ledger_is_refused() {
    let place = Place::new();
    place.write("slow", &failure("shop-slow", 1));
    place.write("f", &checkouts(1));
    let first = place.start(&["dispatch", "slow"], Stdio::null());
    until("begun", || place.read("effects").contains("slow-began r1"));
    for args in [&["dispatch", "f"][..], &["dispatch", "--dry-run", "f"]] {
        let ended = place.run(args);
        assert_eq!(
            ended.refused(),
            format!(
                "error: can't use the ledger `{LEDGER}`: database is locked; another program is using it; wait until it \
                 is done, or give `--ledger` another file\n"
            )
        );
    }
    first.end().well();
    place.run(&["dispatch", "f"]).well();
    assert_eq!(place.effects_once().len(), 6);
}

#[test]
fn what_is_no_ledger_is_refused_and_stays_as_it_is() {
    let place = Place::new();
    place.write("f", &checkouts(1));
    let refused = |ledger: &str, message: &str| {
        let before = fs::read(place.path(ledger)).ok();
        let files = place.files();
        let ended = place.run(&["dispatch", "f", "--ledger", ledger]);
        assert_eq!(ended.refused(), format!("error: {message}\n"));
        assert_eq!(fs::read(place.path(ledger)).ok(), before, "{ledger}");
        assert_eq!(place.files(), files, "{ledger}");
    };
    refused(
        "f",
        "can't use the ledger `f`: file is not a database; give `--ledger` another file, or one that is not there yet",
    );
    let other = Connection::open(place.path("other.db")).unwrap();
    other.execute_batch("CREATE TABLE orders (id TEXT)").unwrap();
    drop(other);
    refused(
        "other.db",
        "`other.db` is no ledger that this version of the program knows (its `user_version` is 0); give `--ledger` \
         another file",
    );
    place.run(&["dispatch", "f", "--ledger", "newer.db"]).well();
    let newer = Connection::open(place.path("newer.db")).unwrap();
    newer.execute_batch("PRAGMA user_version = 2").unwrap();
    drop(newer);
    refused(
        "newer.db",
        "`newer.db` is no ledger that this version of the program knows (its `user_version` is 2); give `--ledger` \
         another file",
    );
    refused(
        "nowhere/ledger.db",
        "can't use the ledger `nowhere/ledger.db`: unable to open database file: nowhere/ledger.db; give `--ledger` a \
         file that can be written, or `--no-ledger`",
    );
    // Nobody can write there, whoever it is.
    refused(
        "/proc/ledger.db",
        "can't use the ledger `/proc/ledger.db`: unable to open database file: /proc/ledger.db; give `--ledger` a file \
         that can be written, or `--no-ledger`",
    );
    assert_eq!(place.effects_once(), done_for(0..1));
}
