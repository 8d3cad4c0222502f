//! `dead-letters`, alone and beside a ledger.

use crate::{Place, cells, checkouts, done_for, failure, row};

/// The names of the letters that there are.
fn names(place: &Place) -> Vec<String> {
    let ended = place.run(&["dead-letters", "list"]);
    cells(ended.well()).iter().skip(1).map(|row| row[0].to_owned()).collect()
}

fn with_failed(number: usize, broken: &str) -> Place {
    let place = Place::with_letters();
    place.write("f", &checkouts(number));
    place.breaks(broken);
    place.run(&["dispatch", "f", "--concurrency", "1"]).failed();
    place
}

#[test]
fn letters_are_listed_and_shown() {
    let place = with_failed(2, "tell");
    let ended = place.run(&["dead-letters", "list"]);
    let lines = cells(ended.well());
    assert_eq!(
        lines[0],
        ["letter", "failed at", "handler", "function", "run", "attempts", "error"]
    );
    assert_eq!(
        lines[1][2..],
        [
            "shop-checkout-failure",
            "shop-checkout",
            "r0",
            "2",
            "step `tell` failed: `tell` is broken"
        ]
    );
    assert_eq!(lines[2][4], "r1");
    assert_eq!(lines[1][0].len(), 10);
    assert!(ended.out.ends_with("\n2 dead letters in letters\n"), "{ended:?}");

    let ended = place.run(&["dead-letters", "list", "--json"]);
    let letters: Vec<serde_json::Value> =
        ended.well().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(letters.len(), 2);
    assert_eq!(letters[1]["event"]["id"], "e1");

    let ended = place.run(&["dead-letters", "show", &lines[1][0][..6].to_uppercase()]);
    let letter: serde_json::Value = serde_json::from_str(ended.well()).unwrap();
    assert!(letter["letter"].as_str().unwrap().starts_with(lines[1][0]), "{letter}");
    assert_eq!(letter["steps"][0]["name"], "refund");
    assert_eq!(letter["error"]["message"], "step `tell` failed: `tell` is broken");
    assert_eq!(letter["error"]["cause"]["message"], "`tell` is broken");
    // What one looks for first comes first.
    let first = ended.out.lines().nth(2).unwrap();
    assert_eq!(first, "  \"handler_id\": \"shop-checkout-failure\",");
}

#[test]
fn some_letters_are_dropped() {
    let place = with_failed(3, "tell");
    let all = names(&place);
    let ended = place.run(&["dead-letters", "drop", &all[1]]);
    let line = format!("dropped {}: shop-checkout-failure for run r1 of shop-checkout\n", all[1]);
    assert_eq!(ended.well(), line);
    assert_eq!(names(&place), [all[0].as_str(), &all[2]]);
    let ended = place.run(&["dead-letters", "drop", &all[1]]);
    assert!(ended.refused().contains("there is no dead letter"), "{ended:?}");
    let ended = place.run(&["dead-letters", "drop", "--handler", "count"]);
    assert_eq!(ended.well(), "no dead letters of handler `count`\n");
    let ended = place.run(&["dead-letters", "retry", "--handler", "count"]);
    assert_eq!(ended.well(), "no dead letters of handler `count`\n");
    place.run(&["dead-letters", "drop", "--handler", "shop-checkout-failure"]).well();
    assert_eq!(names(&place), [""; 0]);
    assert_eq!(place.run(&["dead-letters", "drop", "--all"]).well(), "no dead letters\n");
}

#[test]
fn a_beginning_of_several_names_is_refused() {
    let place = with_failed(40, "tell");
    let all = names(&place);
    // Of 40, two begin alike: there are 16 digits.
    let first = |name: &String| name[..1].to_owned();
    let same = all.iter().map(first).find(|a| all.iter().filter(|b| first(b) == *a).count() > 1);
    let ended = place.run(&["dead-letters", "retry", &same.unwrap()]);
    let message = "dead letters' names; give more of it\n";
    assert!(ended.refused().ends_with(message), "{ended:?}");
}

#[test]
fn a_retried_letter_goes_on_and_is_done_for_the_ledger() {
    let place = with_failed(3, "tell");
    let all = names(&place);
    let ended = place.run(&["dead-letters", "retry", &all[0]]);
    let of = |i: usize| format!("{}: shop-checkout-failure for run r{i} of shop-checkout", all[i]);
    assert_eq!(ended.failed(), "");
    let steps = "failed again: step `tell` failed: `tell` is broken\n0 succeeded, 1 failed\n";
    assert_eq!(ended.out, format!("{}: {steps}", of(0)));
    place.breaks("");
    let ended = place.run(&["dead-letters", "retry", &all[0], &all[2]]);
    assert_eq!(
        ended.well(),
        format!("{}: succeeded\n{}: succeeded\n2 succeeded, 0 failed\n", of(2), of(0))
    );
    let ended = place.run(&["dispatch", "f"]);
    assert_eq!(row(ended.well(), "shop-checkout-failure"), ["1", "0", "0", "2", "1"]);
    assert_eq!(names(&place), [""; 0]);
    assert_eq!(place.effects_once(), done_for(0..3));
}

/// As when the program was killed between its ledger and its letters.
#[test]
fn a_letter_whose_handler_has_succeeded_since_is_not_run() {
    let place = with_failed(2, "tell");
    let letters = place.read("letters");
    place.breaks("");
    place.run(&["dispatch", "f"]).well();
    place.write("letters", &letters);
    let all = names(&place);
    let ended = place.run(&["dead-letters", "retry", "--all"]);
    let done = "shop-checkout: has succeeded since; not run";
    assert_eq!(
        ended.well(),
        format!(
            "{}: shop-checkout-failure for run r0 of {done}\n{}: shop-checkout-failure for run r1 of {done}\n\
             0 succeeded, 0 failed, 2 done before\n",
            all[0], all[1]
        )
    );
    assert_eq!(names(&place), [""; 0]);
    assert_eq!(place.effects_once(), done_for(0..2));
}

/// What a retry completes before it fails again is completed for `dispatch` as well, and the other way round.
#[test]
fn steps_completed_by_one_command_are_not_run_by_the_other() {
    let place = with_failed(2, "refund");
    place.breaks("tell");
    let ended = place.run(&["dead-letters", "retry", "--all"]);
    assert!(ended.out.ends_with("0 succeeded, 2 failed\n"), "{ended:?}");
    assert_eq!(place.effects()["refund o0"], 1);
    place.breaks("");
    place.run(&["dispatch", "f"]).well();
    assert_eq!(place.effects_once(), done_for(0..2));
    assert_eq!(names(&place), [""; 0]);

    let place = with_failed(2, "refund");
    place.breaks("tell");
    place.run(&["dispatch", "f"]).failed();
    place.breaks("");
    place.run(&["dead-letters", "retry", "--all"]).well();
    place.run(&["dispatch", "f"]).well();
    assert_eq!(place.effects_once(), done_for(0..2));
    assert_eq!(names(&place), [""; 0]);
}

/// A failure that no handler took, when there was none: those that had run for it, as the ledger holds, do not again.
#[test]
fn a_letter_of_an_unhandled_failure_runs_what_is_not_done() {
    let place = Place::with_letters();
    place.write("f", &checkouts(1));
    place.run(&["dispatch", "f", "--only", "count"]).well();
    let event: serde_json::Value = serde_json::from_str(&checkouts(1)).unwrap();
    let letter = serde_json::json!({
        "handler_id": "(unhandled)", "failed_at": "2026-11-25T12:00:00Z",
        "error": { "name": "Error", "message": "unhandled" }, "event": event,
    });
    place.write("letters", &format!("{letter}\n"));
    let ended = place.run(&["dead-letters", "retry", "--all"]);
    assert!(ended.well().ends_with(": succeeded\n1 succeeded, 0 failed\n"), "{ended:?}");
    assert_eq!(place.effects_once(), done_for(0..1));
    assert_eq!(names(&place), [""; 0]);
}

#[test]
fn a_letter_of_a_handler_that_is_gone_stays() {
    let place = with_failed(1, "tell");
    let letters = place.read("letters").replace("shop-checkout-failure", "shop-chekout-failure");
    place.write("letters", &letters);
    place.breaks("");
    let ended = place.run(&["dead-letters", "retry", "--all"]);
    assert_eq!(ended.failed(), "");
    assert!(
        ended.out.contains(": not run: ") && ended.out.contains("`shop-checkout-failure`"),
        "{ended:?}"
    );
    assert_eq!(names(&place).len(), 1);
    assert_eq!(place.effects_once(), ["count r0", "refund o0"]);
}

#[test]
fn a_letter_that_fails_again_elsewhere_stays_in_its_file() {
    let place = with_failed(1, "tell");
    std::fs::rename(place.path("letters"), place.path("moved")).unwrap();
    let ended = place.run(&["dead-letters", "retry", "--all", "--file", "moved"]);
    assert!(ended.out.ends_with("0 succeeded, 1 failed\n"), "{ended:?}");
    place.breaks("");
    place.run(&["dead-letters", "retry", "--all", "--file", "moved"]).well();
    assert_eq!(
        place.run(&["dead-letters", "list", "--file", "moved"]).well(),
        "0 dead letters in moved\n"
    );
    place.write("f", &(checkouts(1) + &failure("shop-slow", 1)));
    place.run(&["dispatch", "f", "--only", "shop-checkout-failure"]).well();
    assert_eq!(place.effects_once(), done_for(0..1));
}

/// What was done by hand and dropped is not dispatched: the ledger had it as failed.
#[test]
fn a_dropped_letter_is_done_for_the_ledger() {
    let place = with_failed(2, "tell");
    place.run(&["dead-letters", "drop", "--all"]).well();
    place.breaks("");
    let ended = place.run(&["dispatch", "f"]);
    assert_eq!(row(ended.well(), "shop-checkout-failure")[3], "2", "{ended:?}");
    assert_eq!(place.effects_once(), ["count r0", "count r1", "refund o0", "refund o1"]);
}

#[test]
fn a_letter_that_is_in_two_files_is_taken_out_of_both() {
    let place = with_failed(1, "tell");
    std::fs::copy(place.path("letters"), place.path("copy")).unwrap();
    place.run(&["dead-letters", "retry", "--all", "--file", "copy"]).failed();
    place.breaks("");
    // Without a ledger, nothing else says that it is done.
    std::fs::remove_file(place.path("inngest-failure-ledger.db")).unwrap();
    place.run(&["dead-letters", "retry", "--all", "--file", "copy"]).well();
    assert_eq!(names(&place), [""; 0]);
    assert_eq!(place.run(&["dead-letters", "retry", "--all"]).well(), "no dead letters\n");
    assert_eq!(place.effects_once(), done_for(0..1));
}

#[test]
fn only_one_retries_or_drops_at_a_time() {
    let place = with_failed(1, "tell");
    let lock = std::fs::File::create(place.path("letters.lock")).unwrap();
    lock.lock().unwrap();
    for command in ["retry", "drop"] {
        let ended = place.run(&["dead-letters", command, "--all"]);
        assert_eq!(
            ended.refused(),
            "error: another `retry` or `drop` of the letters in `letters` is under way; wait until it is done\n"
        );
    }
    lock.unlock().unwrap();
    place.run(&["dead-letters", "drop", "--all"]).well();
}

/// A letter may come from elsewhere, and so may what is in it.
#[test]
fn a_terminal_obeys_nothing_in_a_letter() {
    let place = with_failed(1, "tell");
    let letters = place.read("letters").replace("no carrier", "\u{9b}2J\u{202e}\u{7f}é");
    place.write("letters", &letters);
    let shown = place.run(&["dead-letters", "show", &names(&place)[0]]);
    let listed = place.run(&["dead-letters", "list", "--json"]);
    for text in [shown.well(), listed.well()] {
        assert!(text.contains(r"\u009b2J\u202e\u007fé"), "{text}");
        assert!(!text.contains('\u{9b}') && !text.contains('\u{202e}'), "{text}");
    }
}
