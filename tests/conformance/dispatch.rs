//! Every recording through a dispatcher.

use std::collections::BTreeMap;

use inngest_failure::{Dispatcher, Failure, FailureKind, handlers, on_failure};
use tests::{fixture, recordings};

#[on_failure(function = "*", cancelled)]
async fn describe(failure: Failure) -> Result<String, std::convert::Infallible> {
    Ok(format!("{}: {}", failure.error.name, failure.error))
}

#[on_failure(function = "cap4-*", id = "version-4")]
async fn version_4(failure: Failure) {
    assert_eq!(failure.kind, FailureKind::Failed);
}

#[on_failure(fallback, cancelled)]
async fn the_rest() {}

#[tokio::test]
async fn every_recording_runs_the_handlers_that_take_it() {
    let dispatcher = Dispatcher::builder()
        .without_inventory()
        .register(handlers![describe, version_4, the_rest])
        .build()
        .unwrap();
    let mut counts = BTreeMap::<String, u32>::new();
    let mut files = recordings(&["function_cancelled", "function_failed"]);
    files.push("documentation-example.event.json".to_owned());
    for file in &files {
        let dispatch = dispatcher.dispatch_json(&fixture(file)).await.unwrap();
        assert!(dispatch.is_ok() && !dispatch.is_unhandled(), "{file}: {dispatch:?}");
        assert_eq!(dispatch.runs.len(), 2, "{file}");
        assert_eq!(dispatch.runs[0].handler_id, "describe");
        for run in dispatch.runs {
            *counts.entry(run.handler_id).or_default() += 1;
        }
    }
    let version_4 = files
        .iter()
        .filter(|file| file.starts_with("function_failed/") && file.contains(".js-v4."));
    let version_4 = u32::try_from(version_4.count()).unwrap();
    let all = u32::try_from(files.len()).unwrap();
    let expected = [("describe", all), ("the-rest", all - version_4), ("version-4", version_4)];
    assert_eq!(counts, expected.map(|(id, count)| (id.to_owned(), count)).into());
}
