//! What each command says, and what a user is told who makes a mistake.

use crate::{LEDGER, Place, cells, checkouts};

#[test]
fn handlers_are_listed() {
    let place = Place::new();
    let ended = place.run(&["handlers"]);
    let lines = cells(ended.well());
    assert_eq!(
        lines[0],
        ["handler", "function", "takes", "retries", "limits", "at", "description"]
    );
    let ids: Vec<&str> = lines[1..].iter().map(|cells| cells[0]).collect();
    assert_eq!(
        ids,
        [
            "count",
            "report",
            "shop-checkout-failure",
            "shop-slow-failure",
            "shop-stock-rollback/reserve"
        ]
    );
    assert_eq!(
        lines[2][1..5],
        ["operator::report", "shop-report-*", "3", "concurrency 1, rate_limit 1/1h, priority 10"]
    );
    assert!(lines[2][5].starts_with("tests/src/bin/operator.rs:"), "{lines:?}");
    assert_eq!(lines[3][6], "Give the money back, and say so.");
    assert_eq!(lines[5][2], "shop-stock, step reserve");
    assert_eq!(place.files(), [""; 0]);
}

#[test]
fn handlers_are_listed_as_json() {
    let ended = Place::new().run(&["handlers", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(ended.well()).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 5);
    let mut slow = listed[3].clone();
    slow["line"] = 0.into();
    assert_eq!(
        slow,
        serde_json::json!({
            "id": "shop-slow-failure", "name": "slow (failure)", "step": null, "selector": "shop-slow",
            "triggers": [{
                "event": "inngest/function.failed", "expression": "event.data.function_id == 'shop-slow'",
            }],
            "retries": 0, "timeout_ms": 20_000, "concurrency": null, "throttle": null, "rate_limit": null,
            "priority": null, "idempotency": null, "rust_name": "operator::slow",
            "file": "tests/src/bin/operator.rs", "line": 0, "description": "Takes its time.",
        })
    );
    assert_eq!(listed[4]["step"], "reserve");
    assert_eq!(listed[1]["rate_limit"], "1/1h");
}

#[test]
fn a_report_is_a_table_and_a_sum() {
    let place = Place::new();
    place.write("f", &(checkouts(2) + "oops\n{\"name\":\"shop/order.placed\"}\n"));
    place.breaks("tell");
    let ended = place.run(&["dispatch", "f"]);
    assert_eq!(
        ended.out,
        "\
┌───────────────────────┬───────────┬────────┬─────────┬─────────────┬──────────┐
│ handler               ┆ succeeded ┆ failed ┆ limited ┆ done before ┆ attempts │
╞═══════════════════════╪═══════════╪════════╪═════════╪═════════════╪══════════╡
│ count                 ┆ 2         ┆ 0      ┆ 0       ┆ 0           ┆ 2        │
│ shop-checkout-failure ┆ 0         ┆ 2      ┆ 0       ┆ 0           ┆ 4        │
└───────────────────────┴───────────┴────────┴─────────┴─────────────┴──────────┘
2 failure events, 1 of another kind and skipped, 1 not readable
"
    );
    let mut lines: Vec<&str> = ended.failed().lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "f:1, run r0: shop-checkout-failure failed for good after 2 attempts: step `tell` failed: `tell` is broken",
            "f:2, run r1: shop-checkout-failure failed for good after 2 attempts: step `tell` failed: `tell` is broken",
            "f:3: not JSON: expected value at column 1",
            "to run what has failed once more, and nothing else: operator dispatch f",
        ]
    );
}

/// Each mistake, what is said of it, and that nothing has run.
#[test]
fn a_mistake_is_told_with_its_remedy() {
    for (args, message) in [
        (
            "dispatch nope",
            "can't read `nope`: No such file or directory (os error 2); give a file of failure events, or `-` for \
             standard input",
        ),
        (
            "dispatch .",
            "can't read `.`: is a directory; give a file of failure events, or `-` for standard input",
        ),
        ("dispatch f nope", "can't read `nope`"),
        ("dispatch", "the following required arguments were not provided:\n  <FILE>..."),
        (
            "dispatch f --only shop-checkout-failur",
            "there is no handler `shop-checkout-failur`; did you mean `shop-checkout-failure`?",
        ),
        ("dispatch f --only xyz", "there is no handler `xyz`; `handlers` lists them"),
        (
            "dispatch f --since yesterday",
            "invalid value 'yesterday' for '--since <TIME>': give a time ago, such as `24h` or `30m`, or a time, such as \
             `2026-11-25T12:00:00Z`",
        ),
        ("dispatch f --concurrency 0", "0 is not in 1..=1024"),
        (
            "dispatch f --ledger a --no-ledger",
            "the argument '--ledger <FILE>' cannot be used with '--no-ledger'",
        ),
        (
            "dispatch f --dry",
            "unexpected argument '--dry' found\n\n  tip: a similar argument exists: '--dry-run'",
        ),
        (
            "dispach f",
            "unrecognized subcommand 'dispach'\n\n  tip: a similar subcommand exists: 'dispatch'",
        ),
        (
            "dead-letters list",
            "this program keeps its dead letters in no file; give one with `--file`, or let the program's builder have \
             `.dead_letters(JsonLines::open(..)?)`",
        ),
        (
            "dead-letters list --file nope",
            "can't read `nope`: No such file or directory (os error 2); give the file with the dead letters with `--file`",
        ),
        (
            "dead-letters retry --file f",
            "the following required arguments were not provided:\n  <LETTER|--handler <HANDLER>|--all>",
        ),
        (
            "dead-letters drop --file f --all 0a",
            "the argument '--all' cannot be used with '[LETTER]...'",
        ),
        (
            "dead-letters show --file f 0a",
            "there is no dead letter `0a` in `f`; `dead-letters list` shows those that there are",
        ),
        ("backfill", "the following required arguments were not provided:\n  --since <TIME>"),
        (
            "backfill --since 1h --until 2h",
            "`--since` is not before `--until`, so there is nothing between them",
        ),
        (
            "serve --listen here",
            "invalid value 'here' for '--listen <ADDRESS>': invalid socket address syntax",
        ),
        ("serve --grace soon", "invalid value 'soon' for '--grace <DURATION>'"),
    ] {
        let place = Place::new();
        place.write("f", &checkouts(1));
        let ended = place.run(&args.split(' ').collect::<Vec<_>>());
        let err = ended.refused();
        assert!(err.starts_with("error: ") && err.contains(message), "{args}: {err}");
        assert_eq!(place.files(), ["f"], "{args}");
    }
}

#[test]
fn the_environment_names_the_files() {
    let place = Place::with_letters()
        .env("INNGEST_FAILURE_LEDGER", "mine.db")
        .env("INNGEST_FAILURE_DEAD_LETTERS", "moved");
    place.write("f", &checkouts(1));
    place.run(&["dispatch", "f"]).well();
    assert!(place.path("mine.db").exists() && !place.path(LEDGER).exists());
    place.write("moved", "");
    assert_eq!(place.run(&["dead-letters", "list"]).well(), "0 dead letters in moved\n");
}

/// An empty name would be a database that is gone at the end.
#[test]
fn an_empty_ledger_is_no_ledger() {
    let place = Place::new().env("INNGEST_FAILURE_LEDGER", "");
    place.write("f", &checkouts(1));
    place.run(&["dispatch", "f"]).refused();
    place.run(&["dispatch", "f", "--ledger", ""]).refused();
    assert_eq!(place.files(), ["f"]);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let place = Place::new();
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "\"$0\" handlers | true; \"$0\" handlers --json | head -n 1"]);
    let ended =
        crate::Ended::of(place.prepare(shell, &[env!("CARGO_BIN_EXE_operator")]).output().unwrap());
    assert_eq!(ended.well(), "[\n");
}

/// Each option and each argument of each command has its text, and so has each command.
#[test]
fn help_is_complete() {
    let place = Place::new();
    let mut commands = vec![Vec::new()];
    let mut seen = Vec::new();
    while let Some(command) = commands.pop() {
        // The short form: an item and its text stand on one line.
        let args: Vec<&str> = command.iter().copied().chain(["-h"]).collect();
        let ended = place.run(&args);
        let help = ended.well();
        let mut section = "";
        let mut options = Vec::new();
        for line in help.lines() {
            if line.ends_with(':') && !line.starts_with(' ') {
                section = line.trim_end_matches(':');
                continue;
            }
            if line.trim().is_empty() || !["Commands", "Options", "Arguments"].contains(&section) {
                continue;
            }
            // Where another package has clap break lines, a text may go on in the next one.
            if line.starts_with(&" ".repeat(12)) {
                continue;
            }
            let (item, text) = line.trim().split_once("  ").unwrap_or((line.trim(), ""));
            assert!(text.trim().len() >= 3, "{command:?}: `{item}` has no text in\n{help}");
            match section {
                "Commands" if item != "help" => {
                    let name: &'static str = item.to_owned().leak();
                    commands.push(command.iter().copied().chain([name]).collect());
                }
                "Options" => options.extend(
                    item.split([' ', ',']).filter(|word| word.starts_with("--")).map(str::to_owned),
                ),
                _ => {}
            }
        }
        assert!(help.contains("Usage: operator"), "{help}");
        let long = place.run(&command.iter().copied().chain(["--help"]).collect::<Vec<_>>());
        for option in &options {
            assert!(long.well().contains(option.as_str()), "{option}: {long:?}");
        }
        seen.push(format!("{} {}", command.join(" "), options.join(" ")));
    }
    seen.sort();
    assert_eq!(
        seen,
        [
            " --help",
            "backfill --since --until --function --cancelled --output --dry-run --only --concurrency --ledger --no-ledger --help",
            "check --functions --help",
            "dead-letters --help",
            "dead-letters drop --file --handler --all --ledger --help",
            "dead-letters list --file --json --help",
            "dead-letters retry --file --handler --all --ledger --help",
            "dead-letters show --file --help",
            "dispatch --since --dry-run --only --concurrency --ledger --no-ledger --help",
            "handlers --json --help",
            "serve --app --listen --grace --help",
        ]
    );
    let ended = place.run(&["--help"]);
    for sentence in [
        "  0  everything went well\n",
        "  1  something failed: a handler, a line of the input, a dead letter that is still one\n",
        "     nothing has run\n",
    ] {
        assert!(ended.out.contains(sentence), "{}", ended.out);
    }
    let ended = place.run(&["dispatch", "--help"]);
    for sentence in
        ["JSON lines, or any JSON", "run it twice: the second time, nothing is done twice"]
    {
        assert!(ended.out.contains(sentence), "{}", ended.out);
    }
}
