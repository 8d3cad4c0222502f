//! Recorded events, broken in every way: an error or a dispatch each, never a panic.
//!
//! A hundredth of them runs with every `cargo test`; all of them with
//!
//! ```sh
//! cargo test -p tests --release --test soak --test mutations -- --ignored --nocapture
//! ```

use inngest_failure::{
    Dispatcher, Failure, FailureError, FailureEvent, ParseError, RunError, handlers, on_failure,
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde_json::{Value, json};
use tests::{fixture, recorded_event, recordings};

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "only asked for")]
struct Order {
    order_id: String,
    nested: Option<Nested>,
}

#[derive(serde::Deserialize)]
#[expect(dead_code, reason = "only asked for")]
struct Nested {
    amount: u32,
    items: Vec<String>,
}

#[on_failure(function = "*", cancelled, retries = 0)]
async fn look_at_everything(failure: Failure, raw: FailureEvent) {
    let mut error: Option<&FailureError> = Some(&failure.error);
    while let Some(next) = error {
        let _ = (next.code(), next.details::<Value>(), next.to_string());
        error = next.cause.as_deref();
    }
    let _ = failure.events.iter().map(|event| event.map(drop)).collect::<Result<Vec<_>, _>>();
    let _ = (failure.events.raw().get().len(), raw.raw().get().len(), raw.error());
    let _ = format!("{failure:?} {raw:?}");
}

#[on_failure(function = "*", cancelled, retries = 0)]
async fn typed(_: Failure<Order>) {}

#[on_failure(fallback, cancelled, retries = 0)]
async fn untaken(failure: Result<Failure<u8>, ParseError>) {
    assert!(failure.is_err(), "no recorded data is a number");
}

/// Breaks the JSON of an event in one way.
fn mutate(event: &Value, random: &mut StdRng) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(event).unwrap();
    let at = random.random_range(0..bytes.len());
    match random.random_range(0..14) {
        0 => bytes.truncate(at),
        1 => {
            for _ in 0..random.random_range(1..20) {
                let at = random.random_range(0..bytes.len());
                bytes[at] = random.random();
            }
        }
        2 => bytes.splice(at..at, [0xff, 0xfe, 0xc0]).for_each(drop),
        3 => {
            let end = random.random_range(at..bytes.len());
            bytes.drain(at..end);
        }
        4 => {
            // A key twice: the whole inside of an object once more.
            let object = String::from_utf8(bytes).unwrap();
            let inside = object[1..object.len() - 1].to_owned();
            bytes = format!("{{{inside},{inside}}}").into_bytes();
        }
        5 => {
            let huge = json!("x".repeat(random.random_range(0..6_000_000)));
            return with_other(event, random, &huge);
        }
        6 => {
            let depth = random.random_range(1..100_000);
            let open = if random.random() { "[" } else { "{\"a\":" };
            let close = if open == "[" { "]" } else { "}" };
            let deep = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            let marked = with_other(event, random, &json!("put it here"));
            let text = String::from_utf8(marked).unwrap();
            return text.replacen("\"put it here\"", &deep, 1).into_bytes();
        }
        7 => bytes.splice(at..at, *b"\\ud800\\u0000").for_each(drop),
        8..=12 => {
            let all = [
                json!(null),
                json!(true),
                json!(-1),
                json!(1e300),
                json!("text"),
                json!([]),
                json!({}),
            ];
            let other = all.choose(random).unwrap();
            return with_other(event, random, other);
        }
        _ => {
            // As a part of a call, and of a call in a call, which is refused.
            for _ in 0..random.random_range(1..3) {
                let call = String::from_utf8(bytes).unwrap();
                bytes = format!("{{\"ctx\":{{}},\"event\":{call}}}").into_bytes();
            }
        }
    }
    bytes
}

/// The event with another value somewhere in it.
fn with_other(event: &Value, random: &mut StdRng, other: &Value) -> Vec<u8> {
    let mut event = event.clone();
    put(&mut event, random, other);
    serde_json::to_vec(&event).unwrap()
}

fn put(place: &mut Value, random: &mut StdRng, other: &Value) {
    if random.random_bool(0.1) {
        *place = other.clone();
        return;
    }
    match place {
        Value::Object(map) if !map.is_empty() => {
            let i = random.random_range(0..map.len());
            put(map.values_mut().nth(i).unwrap(), random, other);
        }
        Value::Array(list) if !list.is_empty() => {
            let i = random.random_range(0..list.len());
            put(&mut list[i], random, other);
        }
        place => *place = other.clone(),
    }
}

async fn fuzz(count: usize) {
    let dispatcher = Dispatcher::builder()
        .without_inventory()
        .register(handlers![look_at_everything, typed, untaken])
        .build()
        .unwrap();
    let mut events: Vec<Value> = recordings(&["function_cancelled", "function_failed"])
        .iter()
        .map(|file| recorded_event(file))
        .collect();
    events.push(serde_json::from_slice(&fixture("documentation-example.event.json")).unwrap());

    let mut random = StdRng::seed_from_u64(20_261_122);
    let (mut refused, mut dispatched, mut misfits) = (0, 0, 0);
    for number in 0..count {
        let bytes = mutate(&events[number % events.len()], &mut random);
        match dispatcher.dispatch_json(&bytes).await {
            Err(error) => {
                assert!(!error.to_string().is_empty());
                refused += 1;
            }
            Ok(dispatch) => {
                dispatched += 1;
                for run in &dispatch.runs {
                    match &run.result {
                        Ok(_) => {}
                        Err(RunError::Payload(error)) => {
                            assert!(error.path().starts_with("data.event.data"), "{error}");
                            misfits += 1;
                        }
                        Err(error) => panic!("{number}, {}: {error}", run.handler_id),
                    }
                }
            }
        }
    }
    println!("{count} mutations: {refused} refused, {dispatched} dispatched, {misfits} misfits");
    assert_eq!(refused + dispatched, count);
    assert!(refused > count / 4 && dispatched > count / 4 && misfits > 0, "too one-sided to tell");
}

#[tokio::test]
async fn a_broken_event_is_an_error_or_a_dispatch() {
    fuzz(100).await;
}

#[tokio::test]
#[ignore = "the full count, for a release build"]
async fn a_broken_event_is_an_error_or_a_dispatch_in_full() {
    fuzz(10_000).await;
}
