//! Files that can't be written any more.
//!
//! A limit on the size of files stands for a full disk. On a disk that is really full, of a megabyte, for who may mount one:
//!
//! ```text
//! cargo test -p tests --test cli full_disk:: -- --ignored --nocapture
//! ```

use std::{fs::OpenOptions, process::Command};

use rusqlite::Connection;

use crate::{Ended, LEDGER, Place, checkouts, done_for, row};

/// Runs it with files of so many kilobytes at most. What does not fit fails, as it does on a full disk.
fn run_limited(place: &Place, kilobytes: usize, args: &[&str]) -> Ended {
    let mut shell = Command::new("sh");
    // In blocks of 512 bytes, as POSIX has it; the signal that comes with it would end the program.
    let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", 2 * kilobytes);
    shell.args(["-c", &script, env!("CARGO_BIN_EXE_operator")]);
    Ended::of(place.prepare(shell, args).output().unwrap())
}

/// How a log shows JSON, which it quotes.
fn in_a_log(json: &str) -> String {
    json.replace('"', "\\\"")
}

/// The letters that can't be kept go to the log, whole; and no run is lost.
#[test]
fn letters_that_do_not_fit_go_to_the_log() {
    const NUMBER: usize = 200;
    let place = Place::with_letters().env("LOG", "1").env("NO_COLOR", "1");
    place.write("f", &checkouts(NUMBER));
    place.breaks("tell");
    // Without a ledger, which would be full as well.
    let ended = run_limited(&place, 16, &["dispatch", "f", "--no-ledger"]);
    assert_eq!(row(&ended.out, "shop-checkout-failure")[1], NUMBER.to_string());
    let err = ended.failed();
    let kept = place.run(&["dead-letters", "list", "--json"]);
    let kept = kept.out;
    let (mut in_file, mut in_log) = (0, 0);
    for n in 0..NUMBER {
        let id = format!("\"event_id\":\"e{n}\"");
        let logged =
            err.lines().any(|line| line.contains("ERROR") && line.contains(&in_a_log(&id)));
        in_file += usize::from(kept.contains(&id));
        in_log += usize::from(logged);
        assert!(kept.contains(&id) != logged, "{n}");
    }
    assert!(in_file > 5 && in_log > 5, "{in_file} {in_log}");
    assert!(err.contains("can't write `letters`"), "{err}");
    // What is in the file is whole.
    for line in place.read("letters").lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
    println!("of {NUMBER} letters {in_file} in the file, {in_log} in the log");
}

/// A sink to which nothing can be written at all.
#[test]
fn a_sink_that_fails_loses_no_letter() {
    let place = Place::new().env("LETTERS", "/dev/full").env("LOG", "1").env("NO_COLOR", "1");
    place.write("f", &checkouts(3));
    place.breaks("tell");
    let ended = place.run(&["dispatch", "f"]);
    let err = ended.failed();
    for n in 0..3 {
        let id = format!("\"event_id\":\"e{n}\"");
        let id = in_a_log(&id);
        assert!(err.lines().any(|line| line.contains("ERROR") && line.contains(&id)), "{err}");
    }
    // The ledger has them all the same.
    place.breaks("");
    place.run(&["dispatch", "f"]);
    assert_eq!(place.effects_once(), done_for(0..3));
}

/// It stops, says why, and what the ledger holds is true: the next run does the rest.
fn with_full_ledger(place: &Place, number: usize, run: impl FnOnce() -> Ended) {
    let ended = run();
    let err = ended.failed();
    assert!(err.contains("the ledger can't be "), "{err}");
    assert!(err.contains("stopped, for the ledger is of no use, after "), "{err}");
    assert!(err.ends_with("to go on with what is not done yet: operator dispatch f\n"), "{err}");
    assert!(ended.out.contains(" not in the ledger\n"), "{ended:?}");
    let before = place.effects();
    assert!(before.len() < 3 * number, "it went on");
    let database = Connection::open(place.path(LEDGER)).unwrap();
    let mut query =
        database.prepare("SELECT event_id FROM runs WHERE handler_id = 'count'").unwrap();
    let held: Vec<String> =
        query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert!(!held.is_empty());
    drop(query);
    drop(database);
    place.run(&["dispatch", "f"]).well();
    let after = place.effects();
    assert_eq!(after.keys().cloned().collect::<Vec<_>>(), done_for(0..number));
    for event in &held {
        assert_eq!(after[&event.replacen('e', "count r", 1)], 1, "{event}");
    }
    let twice = after.values().filter(|count| **count > 1).count();
    assert!(twice <= 3 * 16, "{twice}");
    println!(
        "{} of {number} in the ledger when it was full; {twice} side effects came again",
        held.len()
    );
}

#[test]
fn a_full_ledger_stops_the_run() {
    const NUMBER: usize = 2000;
    let place = Place::new();
    place.write("f", &checkouts(NUMBER));
    with_full_ledger(&place, NUMBER, || run_limited(&place, 64, &["dispatch", "f"]));
}

#[test]
#[ignore = "mounts a disk"]
fn a_disk_that_is_full_loses_nothing() {
    const NUMBER: usize = 20_000;
    let mounted = Place::new();
    let folder = mounted.folder.path().to_str().unwrap().to_owned();
    let mount = ["-t", "tmpfs", "-o", "size=1m", "tmpfs", &folder];
    assert!(Command::new("mount").args(mount).status().unwrap().success());
    let place = Place::with_letters().env("INNGEST_FAILURE_LEDGER", &format!("{folder}/ledger.db"));
    let place = place.env("LETTERS", &format!("{folder}/letters"));
    place.write("f", &checkouts(NUMBER));
    place.breaks("tell");
    let ended = place.run(&["dispatch", "f"]);
    let err = ended.failed();
    assert!(err.contains("stopped, for the ledger is of no use, after "), "{err}");
    let letters = std::fs::read_to_string(format!("{folder}/letters")).unwrap();
    for line in letters.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
    let bigger = ["-o", "remount,size=100m", &folder];
    assert!(Command::new("mount").args(bigger).status().unwrap().success());
    place.breaks("");
    let ended = place.run(&["dispatch", "f"]);
    let done = place.effects();
    assert!(Command::new("umount").arg(&folder).status().unwrap().success());
    ended.well();
    assert_eq!(done.len(), 3 * NUMBER);
    let twice = done.values().filter(|count| **count > 1).count();
    assert!(twice <= 3 * 16, "{twice}");
    println!(
        "{} letters on a full disk, all whole; {twice} of {} side effects came again",
        letters.lines().count(),
        done.len()
    );
}

/// Nobody reads what is said, or it can't be written: what runs goes on all the same.
#[test]
fn output_that_nobody_takes_stops_nothing() {
    for (stdout, code) in [("/dev/null", 1), ("/dev/full", 1)] {
        let place = Place::with_letters();
        place.breaks("tell");
        place.write("f", &(checkouts(3) + "broken\n"));
        let mut command = place.command(&["dispatch", "f"]);
        command.stdout(OpenOptions::new().write(true).open(stdout).unwrap());
        command.stderr(OpenOptions::new().write(true).open("/dev/full").unwrap());
        assert_eq!(command.status().unwrap().code(), Some(code), "{stdout}");
        place.breaks("");
        let mut command = place.command(&["dead-letters", "retry", "--all"]);
        command.stdout(OpenOptions::new().write(true).open(stdout).unwrap());
        command.stderr(OpenOptions::new().write(true).open("/dev/full").unwrap());
        let code = if stdout == "/dev/full" { 1 } else { 0 };
        assert_eq!(command.status().unwrap().code(), Some(code), "{stdout}");
        let ended = place.run(&["dead-letters", "list"]);
        assert_eq!(ended.well(), "0 dead letters in letters\n", "{stdout}");
        assert_eq!(place.effects_once(), done_for(0..3));
    }
}
