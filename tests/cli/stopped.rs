//! Ctrl-C and SIGTERM.

use std::{io::Write, process::Stdio, thread, time::Duration};

use rustix::process::Signal;

use crate::{Place, checkouts, failure, row, until};

/// Two handlers are in flight when the signal comes; the rest is left.
fn stopped_by(signal: Signal) {
    let place = Place::with_letters();
    let text: String = (0..6).map(|n| failure("shop-slow", n)).collect();
    place.write("it's", &text);
    let args = ["dispatch", "--concurrency", "2", "--only", "shop-slow-failure", "it's"];
    let running = place.start(&args, Stdio::null());
    until("begun", || place.read("effects").lines().count() == 2);
    running.signal(signal);
    let ended = running.end();
    assert_eq!(
        ended.failed(),
        "stopping: 2 failures in flight will be finished; Ctrl-C again stops at once\n\
         stopped after 2 failure events\n\
         to go on with what is not done yet: operator dispatch --concurrency 2 --only shop-slow-failure 'it'\\''s'\n"
    );
    assert_eq!(row(&ended.out, "shop-slow-failure"), ["2", "0", "0", "0", "2"]);
    assert_eq!(
        place.effects_once(),
        ["slow-began r0", "slow-began r1", "slow-ended r0", "slow-ended r1"]
    );

    // The command that it names does the rest, and only that.
    let command = ended.err.lines().last().unwrap().split_once(": ").unwrap().1;
    let command = command.replacen("operator", env!("CARGO_BIN_EXE_operator"), 1);
    let mut shell = std::process::Command::new("sh");
    shell.arg("-c");
    let ended = crate::Ended::of(
        place
            .prepare(shell, &[&command.replace("--concurrency 2", "--concurrency 4")])
            .output()
            .unwrap(),
    );
    assert_eq!(row(ended.well(), "shop-slow-failure"), ["4", "0", "0", "2", "4"]);
    assert_eq!(place.effects_once().len(), 12);
}

#[test]
fn ctrl_c_finishes_what_is_in_flight() {
    stopped_by(Signal::INT);
}

#[test]
fn sigterm_finishes_what_is_in_flight() {
    stopped_by(Signal::TERM);
}

#[test]
fn a_second_ctrl_c_stops_at_once() {
    let place = Place::new();
    place.write("f", &failure("shop-slow", 0));
    let running = place.start(&["dispatch", "f", "--only", "shop-slow-failure"], Stdio::null());
    until("begun", || place.read("effects").contains("slow-began"));
    running.signal(Signal::INT);
    thread::sleep(Duration::from_millis(200));
    running.signal(Signal::INT);
    let ended = running.end();
    assert!(ended.failed().ends_with("stopped at once\n"), "{ended:?}");
    assert_eq!(ended.out, "");
    assert_eq!(place.effects_once(), ["slow-began r0"]);
    // It does not count as done.
    place.run(&["dispatch", "f", "--only", "shop-slow-failure"]).well();
    assert_eq!(place.effects()["slow-ended r0"], 1);
}

/// It ends, though its standard input does not.
#[test]
fn a_run_that_waits_for_its_input_stops() {
    let place = Place::new();
    let mut running = place.start(&["dispatch", "-"], Stdio::piped());
    let mut input = running.0.stdin.take().unwrap();
    input.write_all(checkouts(3).as_bytes()).unwrap();
    until("done", || place.read("effects").lines().count() == 9);
    // The last one is in the ledger as well.
    thread::sleep(Duration::from_millis(200));
    running.signal(Signal::TERM);
    let ended = running.end();
    assert_eq!(
        ended.failed(),
        "stopped after 3 failure events\n\
         to go on with what is not done yet: operator dispatch - (and the same input again)\n"
    );
    drop(input);
    let ended = place.run_with_input(&["dispatch", "-"], &checkouts(4));
    assert_eq!(row(ended.well(), "count"), ["1", "0", "0", "3", "1"]);
    assert_eq!(place.effects_once().len(), 12);
}

#[test]
fn without_a_ledger_it_says_that_it_begins_anew() {
    let place = Place::new();
    place.write("f", &failure("shop-slow", 0));
    let running = place.start(&["dispatch", "f", "--no-ledger"], Stdio::null());
    until("begun", || place.read("effects").contains("slow-began"));
    running.signal(Signal::INT);
    let ended = running.end();
    let last = "there is no ledger, so this begins anew: operator dispatch f --no-ledger\n";
    assert!(ended.failed().ends_with(last), "{ended:?}");
}

#[test]
fn retried_letters_stop_between_two() {
    let place = Place::with_letters();
    place.write("f", &(0..3).map(|n| failure("shop-slow", n)).collect::<String>());
    place.breaks("slow-began");
    place.run(&["dispatch", "f", "--only", "shop-slow-failure"]).failed();
    place.breaks("");
    let running = place.start(&["dead-letters", "retry", "--all"], Stdio::null());
    until("begun", || place.read("effects").contains("slow-began"));
    running.signal(Signal::INT);
    let ended = running.end();
    assert_eq!(
        ended.failed(),
        "stopped with 2 letters left; to go on: operator dead-letters retry --all\n"
    );
    assert_eq!(place.effects_once().len(), 2);
    let list = place.run(&["dead-letters", "list"]);
    assert!(list.well().ends_with("\n2 dead letters in letters\n"), "{list:?}");
}
