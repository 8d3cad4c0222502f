//! Processes that are killed in the middle of a dispatch, and resumed until nothing is left.
//!
//! The full count, 10,000 failures and 100 kills:
//!
//! ```text
//! cargo test --release -p tests --test cli killed:: -- --ignored --nocapture
//! ```

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    io::{Read, Seek, SeekFrom},
    process::Stdio,
    thread,
    time::Duration,
};

use inngest_failure::{DeadLetter, JsonLines};
use rand::{Rng, SeedableRng, rngs::StdRng};
use rusqlite::Connection;

use crate::{LEDGER, Place, Running, failure};

const HANDLER: &str = "shop-checkout-failure";

/// So many failures are handled at once.
const CONCURRENCY: usize = 16;

/// Of three failures two are of checkouts, and one is of a function that no handler names.
fn is_checkout(n: usize) -> bool {
    n % 3 != 2
}

/// What the ledger held when a process had been killed.
#[derive(Default)]
struct Held {
    rows: usize,
    /// The side effects that must not come any more.
    done: HashSet<String>,
    /// The events of which there is a letter in the ledger.
    letters: HashSet<String>,
}

/// Reads a copy, so that the next process finds what the killed one had left.
fn held(place: &Place) -> Held {
    let copy = tempfile::tempdir().unwrap();
    for suffix in ["", "-wal"] {
        let from = place.path(&format!("{LEDGER}{suffix}"));
        if from.exists() {
            fs::copy(from, copy.path().join(format!("copy.db{suffix}"))).unwrap();
        }
    }
    let database = Connection::open(copy.path().join("copy.db")).unwrap();
    let sound: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
    let mut held = Held::default();
    let Ok(mut query) =
        database.prepare("SELECT handler_id, event_id, succeeded, letter FROM runs")
    else {
        // It was killed before there was any.
        return held;
    };
    let mut rows = query.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let (handler, event): (String, String) = (row.get(0).unwrap(), row.get(1).unwrap());
        let n = event.strip_prefix('e').unwrap();
        held.rows += 1;
        match (handler.as_str(), row.get(2).unwrap()) {
            ("count", true) => drop(held.done.insert(format!("count r{n}"))),
            (HANDLER, true) => {
                held.done.extend([format!("refund o{n}"), format!("tell o{n}")]);
            }
            (HANDLER, false) => {
                let letter: String = row.get(3).unwrap();
                let letter: DeadLetter = serde_json::from_str(&letter).unwrap();
                assert_eq!(letter.key(), (HANDLER, event.as_str()));
                let steps = letter.steps.iter().map(|step| step.name.as_deref().unwrap());
                held.done.extend(steps.map(|step| format!("{step} o{n}")));
                held.letters.insert(event);
            }
            other => panic!("{other:?}"),
        }
    }
    held
}

/// The letters in the file that count, and how many lines are not whole.
fn letters(place: &Place) -> (HashSet<String>, usize) {
    let text = place.read("letters");
    let torn = text.lines().filter(|line| {
        !line.is_empty() && serde_json::from_str::<serde_json::Value>(line).is_err()
    });
    let torn = torn.count();
    let Ok(file) = JsonLines::open(place.path("letters")) else { return (HashSet::new(), torn) };
    let letters = file.letters().unwrap().map(|letter| {
        let letter = letter.unwrap();
        let n = letter.event_id().strip_prefix('e').unwrap().parse().unwrap();
        // It is about what it says that it is about.
        let event: serde_json::Value = serde_json::from_str(letter.event.raw().get()).unwrap();
        let original: serde_json::Value =
            serde_json::from_str(&failure("shop-checkout", n)).unwrap();
        assert_eq!((letter.handler_id.as_str(), &event), (HANDLER, &original));
        letter.event_id().to_owned()
    });
    (letters.collect(), torn)
}

/// The side effects since the last time.
fn effects_since(place: &Place, read: &mut u64) -> Vec<String> {
    let Ok(mut file) = fs::File::open(place.path("effects")) else { return Vec::new() };
    file.seek(SeekFrom::Start(*read)).unwrap();
    let mut text = String::new();
    *read += file.read_to_string(&mut text).unwrap() as u64;
    text.lines().map(str::to_owned).collect()
}

/// A process whose log is in a file.
fn start(place: &Place) -> Running {
    let log = fs::OpenOptions::new().create(true).append(true).open(place.path("log")).unwrap();
    let mut command = place.command(&["dispatch", "f"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    Running(command.spawn().unwrap())
}

fn killed(number: usize, kills: usize, longest: Duration) {
    let mut random = StdRng::seed_from_u64(17);
    let place = Place::with_letters();
    let text: String = (0..number)
        .map(|n| failure(if is_checkout(n) { "shop-checkout" } else { "shop-other" }, n))
        .collect();
    place.write("f", &text);

    let (mut was_held, mut read, mut real_kills, mut ended) = (Held::default(), 0, 0, 0);
    let check = |was_held: &mut Held, read: &mut u64, kills: usize| {
        // Nothing runs for which the ledger had held that it was done.
        for effect in effects_since(&place, read) {
            assert!(!was_held.done.contains(&effect), "{effect} again");
        }
        let held = held(&place);
        assert!(held.rows >= was_held.rows, "{} rows after {}", held.rows, was_held.rows);
        assert!(held.done.is_superset(&was_held.done), "the ledger has lost something");
        // A letter is in its file before it is in the ledger.
        let (letters, torn) = letters(&place);
        let lost: Vec<&String> = held.letters.difference(&letters).collect();
        assert!(lost.is_empty(), "{lost:?} are in no file");
        assert!(torn <= kills, "{torn} letters are torn by {kills} kills");
        *was_held = held;
        torn
    };
    while real_kills < kills {
        place.breaks(["tell", "refund", "", ""][random.random_range(0..4)]);
        let running = start(&place);
        let after = random.random_range(Duration::from_millis(2)..longest);
        thread::sleep(after);
        match running.kill() {
            true => real_kills += 1,
            false => {
                ended += 1;
                assert!(ended < 50 * kills, "it is done before it can be killed");
            }
        }
        check(&mut was_held, &mut read, real_kills);
    }
    // The last one that fails is not killed: of each failure there is a success, a letter or a line in the log.
    place.breaks("tell");
    fs::write(place.path("log"), "").unwrap();
    assert_eq!(start(&place).wait(Duration::from_secs(300)).code(), Some(1));
    check(&mut was_held, &mut read, real_kills);
    let ((letters_there, _), log) = (letters(&place), place.read("log"));
    let unhandled: HashSet<&str> = log
        .lines()
        .filter(|line| line.contains(": unhandled: "))
        .map(|line| line.split_once(", run r").unwrap().1.split_once(':').unwrap().0)
        .collect();
    let (mut succeeded, mut with_letter, mut with_line) = (0, 0, 0);
    for n in 0..number {
        assert!(was_held.done.contains(&format!("count r{n}")), "{n} is lost");
        match is_checkout(n) {
            true if letters_there.contains(&format!("e{n}")) => with_letter += 1,
            true if was_held.done.contains(&format!("tell o{n}")) => succeeded += 1,
            false if unhandled.contains(n.to_string().as_str()) => with_line += 1,
            _ => panic!("{n} is lost"),
        }
    }

    // Put right, everything succeeds, and no letter is left.
    place.breaks("");
    assert_eq!(start(&place).wait(Duration::from_secs(300)).code(), Some(1));
    let torn = check(&mut was_held, &mut read, real_kills);
    assert_eq!(letters(&place).0, HashSet::new());
    let effects: BTreeMap<String, usize> = place.effects();
    let checkouts = (0..number).filter(|n| is_checkout(*n)).count();
    assert_eq!(effects.len(), number + 2 * checkouts);
    // What had run and was not in the ledger yet when its process was killed.
    let twice: usize = effects.values().map(|count| count - 1).sum();
    let most = real_kills * CONCURRENCY * 3;
    assert!(twice <= most, "{twice} side effects came again");
    println!(
        "{number} failures, {real_kills} kills, {ended} runs that had ended before: {succeeded} had succeeded, \
         {with_letter} had a letter and {with_line} a line in the log; {} side effects, {twice} of them again (the bound is \
         {most}), none for which the ledger held it done; {torn} torn lines among the letters, 0 lost",
        effects.values().sum::<usize>(),
    );
}

#[test]
fn killed_processes_lose_nothing_and_do_nothing_twice() {
    killed(100, 8, Duration::from_millis(50));
}

#[test]
#[ignore = "the full count"]
fn processes_killed_100_times_lose_nothing_and_do_nothing_twice() {
    killed(10_000, 100, Duration::from_millis(2500));
}
