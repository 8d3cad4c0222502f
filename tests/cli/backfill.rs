//! `backfill`, from a server that plays Inngest's API.

use std::{fs, path::Path, sync::Arc};

use bytes::Bytes;
use serde_json::{Value, json};
use tests::http::{Api, KEY, OTHER_KEY, nowhere};

use crate::{Ended, Place, done_for, row};

/// A server that knows so many failed runs, as it is asked for by `INNGEST_DEV`.
struct Played {
    api: Api,
    place: Place,
}

/// What is different about a run.
#[derive(Clone, Copy, PartialEq)]
enum Odd {
    /// Of another function.
    Other,
    /// Of a failure handler.
    Handler,
    NoTrace,
    Broken,
    Garbage,
}

/// The recorded traces, of runs of every kind.
fn recordings() -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/traces");
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    files.map(|path| serde_json::from_slice(&fs::read(path).unwrap()).unwrap()).collect()
}

/// What the server answers to this, with so many runs on a page.
fn answers(
    runs: usize,
    per_page: usize,
    odd: &'static [(usize, Odd)],
) -> impl Fn(&str) -> (u16, String) {
    let recordings = recordings();
    let odd = move |n| odd.iter().find(|(other, _)| *other == n).map(|(_, odd)| *odd);
    move |path_and_query: &str| {
        let Some(question) = path_and_query.strip_prefix("/api/v2/runs") else {
            return (404, "404 page not found".to_owned());
        };
        if let Some(query) = question.strip_prefix('?') {
            assert!(query.contains("status=FAILED") && query.contains("limit=100"), "{query}");
            let cursor = query.split('&').find_map(|pair| pair.strip_prefix("cursor="));
            let first: usize = cursor.map_or(0, |cursor| cursor.parse().unwrap());
            let end = (first + per_page).min(runs);
            let data: Vec<Value> = (first..end)
                .map(|n| {
                    let function = if odd(n) == Some(Odd::Other) { "slow" } else { "checkout" };
                    json!({
                        "id": format!("r{n}"), "status": "FAILED", "app": { "id": "shop" },
                        "function": { "id": function, "name": "Checkout" },
                        "queuedAt": "2026-11-22T21:45:35.508Z", "endedAt": "2026-11-22T21:45:36.508Z",
                        "trigger": { "eventIds": [format!("t{n}")], "isBatch": false },
                    })
                })
                .collect();
            let page = json!({ "cursor": end.to_string(), "hasMore": end < runs, "limit": 100 });
            return (200, json!({ "data": data, "page": page }).to_string());
        }
        let id =
            question.strip_prefix('/').unwrap().strip_suffix("/trace?includeOutput=true").unwrap();
        let n: usize = id.strip_prefix('r').unwrap().parse().unwrap();
        let mut trace = recordings[n % recordings.len()]["trace"].clone();
        trace["data"]["runId"] = id.into();
        trace["data"]["rootSpan"]["input"]["data"][0]["data"] =
            json!({ "order_id": format!("o{n}") });
        match odd(n) {
            Some(Odd::NoTrace) => {
                return (404, r#"{"errors":[{"message":"no such run"}]}"#.to_owned());
            }
            Some(Odd::Broken) => return (500, "oops".to_owned()),
            Some(Odd::Garbage) => return (200, "<html>".to_owned()),
            Some(Odd::Handler) => {
                trace["data"]["rootSpan"]["input"]["data"][0]["name"] =
                    "inngest/function.failed".into();
            }
            _ => {}
        }
        (200, trace.to_string())
    }
}

impl Played {
    async fn start(runs: usize, per_page: usize, odd: &'static [(usize, Odd)]) -> Self {
        let answers = Arc::new(answers(runs, per_page, odd));
        let api = Api::start_with(move |request| {
            let (status, body) = answers(request.uri().path_and_query().unwrap().as_str());
            (status, Bytes::from(body))
        })
        .await;
        let place = Place::with_letters().env("INNGEST_DEV", &api.origin());
        Self { api, place }
    }

    fn backfill(&self, args: &[&str]) -> Ended {
        let all =
            ["backfill", "--since", "2026-11-22T00:00:00Z", "--until", "2026-11-23T00:00:00Z"];
        self.place.run(&all.into_iter().chain(args.iter().copied()).collect::<Vec<_>>())
    }
}

/// Each run is dispatched once, however often it is asked for.
async fn backfilled(runs: usize, per_page: usize) {
    let played = Played::start(runs, per_page, &[]).await;
    let ended = played.backfill(&[]);
    let all = runs.to_string().replace("1000", "1,000");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.err.ends_with(&format!("\n{all} failed runs\n")), "{}", ended.err);
    let pages = ended.err.lines().filter(|line| line.ends_with(" so far")).count();
    assert_eq!(pages, runs.div_ceil(per_page));
    // What would run comes first, then what has.
    let (preview, report) = ended.out.split_once(" failure events\n").unwrap();
    assert_eq!(row(preview, "shop-checkout-failure"), [&all, "0"]);
    assert_eq!(row(report, "shop-checkout-failure"), [&all, "0", "0", "0", &all]);
    assert_eq!(played.place.effects_once(), done_for(0..runs));

    let ended = played.backfill(&[]);
    let (_, report) = ended.out.split_once(" failure events\n").unwrap();
    assert_eq!(row(report, "shop-checkout-failure"), ["0", "0", "0", &all, "0"]);
    assert_eq!(played.place.effects_once(), done_for(0..runs));
    println!("{runs} failed runs on {pages} pages, each dispatched once by two backfills");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_failed_run_is_dispatched_once() {
    backfilled(100, 30).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the full count"]
async fn each_of_1000_failed_runs_is_dispatched_once() {
    backfilled(1000, 100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_without_its_trace_is_told_and_the_others_are_done() {
    const ODD: &[(usize, Odd)] =
        &[(1, Odd::NoTrace), (4, Odd::Broken), (7, Odd::Garbage), (8, Odd::Handler)];
    let played = Played::start(12, 5, ODD).await;
    let ended = played.backfill(&[]);
    let err = ended.failed();
    for n in [1, 4, 7] {
        assert!(err.contains(&format!("run r{n} of shop-checkout is left out: ")), "{err}");
    }
    assert!(err.contains("500 Internal Server Error"), "{err}");
    assert!(
        err.ends_with("\n8 failed runs, 1 of functions that a failure had itself started, left out, 3 left out, see above\n"),
        "{err}"
    );
    assert_eq!(played.place.effects_once(), done_for([0, 2, 3, 5, 6, 9, 10, 11]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_handler_is_told_with_its_run() {
    let played = Played::start(3, 100, &[]).await;
    played.place.breaks("tell");
    let ended = played.backfill(&[]);
    let err = ended.failed();
    let line = ", run r1: shop-checkout-failure failed for good after 2 attempts: step `tell` failed: `tell` is broken\n";
    assert!(err.contains(&format!("failed run:2{line}")), "{err}");
    let again = "to run what has failed once more, and nothing else: operator backfill --since \
                 2026-11-22T00:00:00.000Z --until 2026-11-23T00:00:00.000Z\n";
    assert!(err.ends_with(again), "{err}");
    played.place.breaks("");
    assert_eq!(played.backfill(&[]).code, Some(0));
    assert_eq!(played.place.effects_once(), done_for(0..3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_shows_what_would_run() {
    let played = Played::start(3, 100, &[]).await;
    let before = played.place.files();
    let ended = played.backfill(&["--dry-run"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(row(&ended.out, "shop-checkout-failure"), ["3", "0"]);
    assert_eq!(ended.out.matches("failure events").count(), 1);
    assert_eq!(played.place.effects().len(), 0);
    let mut after = played.place.files();
    after.retain(|file| file != "letters");
    assert_eq!(after, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_one_function_is_taken() {
    let played = Played::start(6, 2, &[(1, Odd::Other), (4, Odd::Other)]).await;
    let ended = played.backfill(&["--function", "shop-checkout"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.err.ends_with("\n4 failed runs, 2 of other functions\n"), "{ended:?}");
    assert_eq!(played.place.effects_once(), done_for([0, 2, 3, 5]));
    let ended = played.backfill(&["--function", "shop-chekout"]);
    assert!(ended.err.contains("0 failed runs, 6 of other functions\n"), "{ended:?}");
    // No trace was fetched of the others.
    let asked =
        |run: &str| played.api.received().iter().any(|request| request.uri().path().contains(run));
    assert!(asked("/r0/") && !asked("/r1/"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_output_can_be_dispatched() {
    let played = Played::start(5, 2, &[(3, Odd::NoTrace)]).await;
    let ended = played.backfill(&["--dry-run", "--output", "runs.jsonl"]);
    assert!(ended.failed().ends_with("their failure events are in runs.jsonl\n"), "{ended:?}");
    assert_eq!(played.place.effects().len(), 0);
    let ended = played.place.run(&["dispatch", "runs.jsonl"]);
    assert_eq!(row(ended.well(), "shop-checkout-failure"), ["4", "0", "0", "0", "4"]);
    let done = done_for([0, 1, 2, 4]);
    assert_eq!(played.place.effects_once(), done);
    // To the ledger the events are the same.
    assert_eq!(played.backfill(&[]).code, Some(1));
    assert_eq!(played.place.effects_once(), done);
    let ended = played.backfill(&["--output", "runs.jsonl"]);
    assert_eq!(
        ended.refused(),
        "error: can't make `runs.jsonl`: File exists (os error 17); name a file that is not there yet\n"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fallback_key_is_tried() {
    let answers = Arc::new(answers(3, 100, &[]));
    let api = Api::start_with(move |request| {
        // Which key it is, its hash tells: that of the first one is refused.
        let key = request.headers().get("authorization").map_or("", |key| key.to_str().unwrap());
        let key = key.strip_prefix("Bearer signkey-test-").unwrap();
        let is_fallback = key == token(OTHER_KEY);
        assert!(is_fallback || key == token(KEY), "{key}");
        if !is_fallback {
            return (401, "{}".into());
        }
        let path = request.uri().path_and_query().unwrap().as_str();
        let (status, body) = answers(&format!("/api{path}"));
        (status, Bytes::from(body))
    })
    .await;
    let place =
        Place::new().env("INNGEST_SIGNING_KEY", KEY).env("INNGEST_API_BASE_URL", &api.origin());
    let args = ["backfill", "--since", "2026-11-22T00:00:00Z", "--until", "2026-11-23T00:00:00Z"];
    let ended = place.run(&args);
    assert_eq!(
        ended.refused(),
        format!(
            "error: Inngest at `{}` does not give the list of failed runs: 401 Unauthorized; see that \
             `INNGEST_SIGNING_KEY` is that of the environment\n",
            api.origin()
        )
    );
    assert!(!place.path("effects").exists());
    let place = place.env("INNGEST_SIGNING_KEY_FALLBACK", OTHER_KEY);
    assert_eq!(place.run(&args).code, Some(0));
    assert_eq!(place.effects_once(), done_for(0..3));
}

/// The part of a bearer token that is a key's hash.
fn token(key: &str) -> String {
    use sha2::{Digest, Sha256};
    let secret = hex::decode(key.rsplit('-').next().unwrap()).unwrap();
    hex::encode(Sha256::digest(secret))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_is_not_there_is_told() {
    let origin = nowhere();
    let place = Place::new().env("INNGEST_DEV", &origin);
    let ended = place.run(&["backfill", "--since", "1h"]);
    let message = format!(
        "error: can't reach Inngest at `{origin}`; start the dev server (`npx inngest-cli@latest dev`), or set \
         `INNGEST_DEV` to its URL, or to `0` for the cloud: "
    );
    assert!(ended.refused().starts_with(&message), "{ended:?}");
    // One that has no such API.
    let api = Api::start_with(|_| (404, "404 page not found".into())).await;
    let place = Place::new().env("INNGEST_DEV", &api.origin());
    let ended = place.run(&["backfill", "--since", "1h"]);
    let message = format!(
        "error: Inngest at `{}` has no list of runs, neither at `/v2` nor at `/api/v2`; ",
        api.origin()
    );
    assert!(ended.refused().starts_with(&message), "{ended:?}");
}
