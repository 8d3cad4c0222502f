//! Letters in a file: what is written, what is read, and what happens to the file meanwhile.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::Write,
    path::Path,
    time::Duration,
};

use futures_util::FutureExt;
use inngest_failure::{
    BoxFuture, DeadLetter, DeadLetters, Dispatcher, FailureEvent, HandlerError, JsonLines,
    handlers, on_failure, testing::failure,
};
use serde_json::{Value, json};
use tests::Log;

use crate::{Outcome, TestFile, builder, logged};

/// A letter, as text that is no line yet.
fn json_of(handler_id: &str, event_id: &str, message: &str) -> Value {
    json!({
        "handler_id": handler_id, "failed_at": "2026-11-22T20:13:03.544Z", "attempts": 1,
        "error": { "name": "Error", "message": message },
        "event": {
            "name": "inngest/function.failed", "id": event_id,
            "data": { "function_id": "shop-checkout", "run_id": "r1", "event": { "data": {} } },
        },
    })
}

pub(crate) fn letter(event_id: &str, message: &str) -> DeadLetter {
    serde_json::from_value(json_of("shop-checkout-failure", event_id, message)).unwrap()
}

/// The keys' event ids and the messages of all letters.
#[track_caller]
fn read(letters: &JsonLines) -> Vec<(String, String)> {
    let letter = |letter: std::io::Result<DeadLetter>| {
        let letter = letter.unwrap();
        (letter.event_id().to_owned(), letter.error.message)
    };
    letters.letters().unwrap().map(letter).collect()
}

fn are<const N: usize>(letters: [(&str, &str); N]) -> Vec<(String, String)> {
    letters.map(|(id, message)| (id.to_owned(), message.to_owned())).to_vec()
}

fn open(file: &TestFile) -> JsonLines {
    JsonLines::open(&file.0).unwrap()
}

#[tokio::test]
async fn an_empty_file_has_no_letters_and_what_is_put_is_read_in_its_order() {
    let file = TestFile::new();
    let letters = open(&file);
    assert_eq!(letters.path(), file.0);
    assert_eq!(fs::read(&file.0).unwrap(), b"");
    assert_eq!(read(&letters), []);
    for (id, message) in [("e1", "a"), ("e2", "b"), ("e1", "c")] {
        letters.put(&letter(id, message)).await.unwrap();
    }
    // Of one key the last one counts, at its own place.
    assert_eq!(read(&letters), are([("e2", "b"), ("e1", "c")]));
    assert_eq!(read(&open(&file)), are([("e2", "b"), ("e1", "c")]));
    assert_eq!(fs::read_to_string(&file.0).unwrap().lines().count(), 3);
}

#[tokio::test]
async fn a_letter_that_was_removed_counts_again_if_it_is_put_again() {
    let file = TestFile::new();
    let letters = open(&file);
    let (one, two) = (letter("e1", "a"), letter("e2", "b"));
    letters.put(&one).await.unwrap();
    letters.put(&two).await.unwrap();
    letters.remove(&one).unwrap();
    assert_eq!(read(&letters), are([("e2", "b")]));
    // What is not there is none the worse.
    letters.remove(&one).unwrap();
    letters.remove(&letter("e3", "never")).unwrap();
    assert_eq!(read(&letters), are([("e2", "b")]));
    letters.put(&letter("e1", "c")).await.unwrap();
    assert_eq!(read(&letters), are([("e2", "b"), ("e1", "c")]));
    // By handler and event, not by one of them.
    letters.remove(&serde_json::from_value(json_of("other", "e1", "")).unwrap()).unwrap();
    assert_eq!(read(&letters).len(), 2);
}

#[tokio::test]
async fn lines_that_are_no_letters_are_skipped_with_a_warning() {
    let file = TestFile::new();
    let line = |id: &str, message: &str| json_of("h", id, message).to_string();
    let foreign = [
        "garbage",
        "[]",
        "{}",
        "null",
        "7",
        r#"{"removed":{}}"#,
        r#"{"handler_id":"h"}"#,
        "\u{0}\u{0}",
    ];
    let mut text = line("e1", "a") + "\r\n\n   \r\n";
    for foreign in foreign {
        text += &format!("{foreign}\n");
    }
    text += &(line("e2", "b") + "\n");
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(b"\xff\xfe not UTF-8\n");
    let torn = line("e3", "c");
    bytes.extend_from_slice(&torn.as_bytes()[..torn.len() / 2]);
    fs::write(&file.0, &bytes).unwrap();

    let letters = open(&file);
    let (log, guard) = Log::start(tracing::Level::WARN);
    assert_eq!(read(&letters), are([("e1", "a"), ("e2", "b")]));
    drop(guard);
    let text = log.text();
    assert_eq!(text.matches("not a dead letter, skipped").count(), foreign.len() + 2, "{text}");
    for number in (4..12).chain([13, 14]) {
        assert!(text.contains(&format!(" line={number} ")), "{number}: {text}");
    }

    // What is left of a line does not spoil the next one, nor is anything of it touched.
    letters.put(&letter("e4", "d")).await.unwrap();
    assert!(fs::read(&file.0).unwrap().starts_with(&bytes));
    assert_eq!(read(&letters), are([("e1", "a"), ("e2", "b"), ("e4", "d")]));
    OpenOptions::new().append(true).open(&file.0).unwrap().write_all(b"{\"handler_id\"").unwrap();
    letters.remove(&letter("e4", "d")).unwrap();
    assert_eq!(read(&letters), are([("e1", "a"), ("e2", "b")]));
}

#[on_failure(function = "*", id = "fails", retries = 0)]
async fn fails() -> Outcome {
    Err("closed".into())
}

fn dispatcher(letters: &JsonLines) -> Dispatcher {
    builder().register(handlers![fails]).dead_letters(letters.clone()).build().unwrap()
}

#[tokio::test]
async fn an_event_of_several_lines_makes_one_line() {
    let file = TestFile::new();
    let letters = open(&file);
    let mut json = serde_json::to_string_pretty(&json_of("", "e1", "")["event"]).unwrap();
    json = json.replace('\n', "\r\n").replace("r1", "r\\n1");
    let event = FailureEvent::from_slice(json.as_bytes()).unwrap();
    dispatcher(&letters).dispatch(event.clone()).await;
    assert_eq!(fs::read_to_string(&file.0).unwrap().lines().count(), 1);
    let read = letters.letters().unwrap().next().expect("the letter").unwrap();
    assert_eq!((read.event.run_id(), read.event_id()), ("r\n1", "e1"));
    let value = |event: &FailureEvent| serde_json::from_str::<Value>(event.raw().get()).unwrap();
    assert_eq!(value(&read.event), value(&event));
}

#[tokio::test]
async fn a_letter_of_2_mb_and_one_that_is_nested_deep_are_kept_whole() {
    let file = TestFile::new();
    let letters = open(&file);
    let large = "ü\n\"\u{2028}".repeat(130_000);
    let event = failure("shop-checkout").run_id("large").data(json!({ "text": large })).build();
    dispatcher(&letters).dispatch(event.clone()).await;
    let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
    let deep = format!(
        r#"{{"name":"inngest/function.failed","id":"deep","data":{{"function_id":"shop-x","run_id":"deep","event":{{"data":{{"a":{deep}}}}}}}}}"#
    );
    let deep: FailureEvent = deep.parse().unwrap();
    dispatcher(&letters).dispatch(deep.clone()).await;
    assert!(fs::metadata(&file.0).unwrap().len() > 2_000_000);
    let read: Vec<DeadLetter> = letters.letters().unwrap().map(Result::unwrap).collect();
    assert_eq!(read.len(), 2);
    assert_eq!(read[0].event.raw().get(), event.raw().get());
    assert_eq!(read[1].event.raw().get(), deep.raw().get());
}

#[tokio::test]
async fn a_file_that_is_moved_away_or_deleted_is_made_anew() {
    let (file, moved) = (TestFile::new(), TestFile::new());
    let letters = open(&file);
    letters.put(&letter("e1", "a")).await.unwrap();
    fs::rename(&file.0, &moved.0).unwrap();
    assert!(letters.letters().is_err());
    letters.put(&letter("e2", "b")).await.unwrap();
    assert_eq!(read(&letters), are([("e2", "b")]));
    assert_eq!(read(&open(&moved)), are([("e1", "a")]));
    fs::remove_file(&file.0).unwrap();
    letters.remove(&letter("e2", "b")).unwrap();
    letters.put(&letter("e3", "c")).await.unwrap();
    assert_eq!(read(&letters), are([("e3", "c")]));
}

/// Somebody takes the file away between its opening and the lock.
#[tokio::test]
async fn a_letter_does_not_go_into_a_file_that_was_taken_away_while_it_waited() {
    let file = TestFile::new();
    let letters = open(&file);
    let held = File::open(&file.0).unwrap();
    held.lock().unwrap();
    let put = tokio::spawn({
        let letters = letters.clone();
        async move { letters.put(&letter("e1", "a")).await.map_err(|error| error.to_string()) }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!put.is_finished());
    fs::remove_file(&file.0).unwrap();
    drop(held);
    put.await.unwrap().unwrap();
    assert_eq!(read(&letters), are([("e1", "a")]));
}

/// A sink that fails: the answer is what it was, the letter is in the log.
async fn assert_logged(letters: &JsonLines, reason: &str) {
    let (log, _guard) = Log::start(tracing::Level::ERROR);
    let report = dispatcher(letters).dispatch(letter("e1", "").event).await;
    assert_eq!(report.runs[0].result.as_ref().unwrap_err().to_string(), "closed");
    let letters = logged(&log.text());
    assert_eq!(letters.len(), 1, "{}", log.text());
    assert!(letters[0].0.contains(reason), "{}", letters[0].0);
    assert_eq!(letters[0].1.key(), ("fails", "e1"));
}

#[tokio::test]
async fn a_file_that_can_not_be_written_puts_the_letter_into_the_log() {
    let folder = TestFile::new();
    fs::create_dir(&folder.0).unwrap();
    let path = folder.0.join("letters.jsonl");
    let letters = JsonLines::open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_logged(&letters, &format!("can't write `{}`: ", path.display())).await;
    fs::remove_dir_all(&folder.0).unwrap();
    assert_logged(&letters, "No such file").await;
    assert!(letters.remove(&letter("e1", "")).is_err());
    assert!(JsonLines::open(&path).is_err());
}

/// Whether the folder's permissions mean anything to whoever runs this: to the superuser they don't.
fn make_read_only(folder: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;

    fs::set_permissions(folder, fs::Permissions::from_mode(0o500)).unwrap();
    File::create(folder.join("probe")).is_err()
}

#[tokio::test]
async fn a_folder_that_is_read_only_puts_the_letter_into_the_log() {
    let folder = TestFile::new();
    fs::create_dir(&folder.0).unwrap();
    let path = folder.0.join("letters.jsonl");
    let letters = JsonLines::open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    if make_read_only(&folder.0) {
        assert_logged(&letters, "Permission denied").await;
        assert!(JsonLines::open(&path).is_err());
    }
    // The superuser has such folders as well.
    let letters = JsonLines::open("/proc/self/letters.jsonl");
    assert!(letters.is_err());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_disk_that_is_full_puts_the_letter_into_the_log() {
    assert_logged(&JsonLines::open("/dev/full").unwrap(), "No space left on device").await;
}

#[test]
fn a_runtime_that_has_shut_down_does_not_stop_the_writing_of_others() {
    let file = TestFile::new();
    let letters = open(&file);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let handle = runtime.handle().clone();
    runtime.shutdown_background();
    let first = letter("e1", "a");
    let mut put: BoxFuture<'_, _> = letters.put(&first);
    let guard = handle.enter();
    let at_once = (&mut put).now_or_never();
    drop(guard);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let within = Duration::from_secs(5);
        let lost = match at_once {
            Some(result) => result,
            None => tokio::time::timeout(within, put).await.expect("an end"),
        };
        assert!(lost.unwrap_err().to_string().contains("the runtime shuts down"));
        let second = letter("e2", "b");
        let put = tokio::time::timeout(within, letters.put(&second)).await;
        put.expect("an end").unwrap();
    });
    assert_eq!(read(&letters), are([("e2", "b")]));
}

#[test]
fn a_letter_that_is_put_outside_of_a_runtime_does_not_stop_the_writing_of_others() {
    let file = TestFile::new();
    let letters = open(&file);
    let first = letter("e1", "a");
    drop(builder());
    let outside = std::panic::AssertUnwindSafe(|| letters.put(&first).now_or_never());
    assert!(std::panic::catch_unwind(outside).is_err());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let second = letter("e2", "b");
        let put = tokio::time::timeout(Duration::from_secs(5), letters.put(&second)).await;
        put.expect("an end").unwrap();
    });
    assert_eq!(read(&letters), are([("e2", "b")]));
}

/// As a plain `fn` may do that has to wait for something async.
#[test]
fn a_letter_may_be_put_from_within_block_on() {
    let file = TestFile::new();
    let letters = open(&file);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.unwrap();
    let handle = runtime.handle().clone();
    let within = runtime.spawn_blocking({
        let letters = letters.clone();
        move || handle.block_on(letters.put(&letter("e1", "a"))).map_err(|error| error.to_string())
    });
    runtime.block_on(within).unwrap().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        letters.put(&letter("e2", "b")).await.unwrap();
    });
    assert_eq!(read(&letters), are([("e1", "a"), ("e2", "b")]));
}

#[tokio::test]
async fn a_letter_is_written_also_if_nobody_waits_for_it() {
    let file = TestFile::new();
    let letters = open(&file);
    let first = letter("e1", "a");
    assert!(letters.put(&first).now_or_never().is_none());
    letters.put(&letter("e2", "b")).await.unwrap();
    assert_eq!(read(&letters), are([("e1", "a"), ("e2", "b")]));
}

#[on_failure(function = "*", id = "multi", retries = 0)]
async fn multi() -> Outcome {
    tokio::task::yield_now().await;
    Err(HandlerError::from("closed"))
}

/// Several threads, several sinks on one file, and readers beside them.
async fn threads(letters_each: usize) {
    const TASKS: usize = 8;
    let file = TestFile::new();
    let sinks = [open(&file), open(&file)];
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let letters = sinks[task % 2].clone();
            let builder = builder().register(handlers![multi]);
            let dispatcher = builder.dead_letters(letters.clone()).build().unwrap();
            tokio::spawn(async move {
                for i in 0..letters_each {
                    let id = format!("{task}-{i}");
                    let event =
                        failure("shop-checkout").run_id(&id).data("x".repeat(i % 3000)).build();
                    dispatcher.dispatch(event).await;
                    // What was reported is there.
                    if i % (letters_each / 5) == 0 {
                        let mut all = letters.letters().unwrap().map(Result::unwrap);
                        assert!(all.any(|letter| letter.event.run_id() == id), "{id}");
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let (log, _guard) = Log::start(tracing::Level::WARN);
    let read: BTreeSet<String> = sinks[0]
        .letters()
        .unwrap()
        .map(|letter| letter.unwrap().event.run_id().to_owned())
        .collect();
    assert_eq!(log.text(), "");
    let expected: BTreeSet<String> =
        (0..TASKS).flat_map(|task| (0..letters_each).map(move |i| format!("{task}-{i}"))).collect();
    assert_eq!(read, expected);
    println!("{} letters by {TASKS} tasks, all read back", read.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn several_threads_write_one_file() {
    threads(25).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "the full count"]
async fn several_threads_write_20_000_letters() {
    threads(2500).await;
}
