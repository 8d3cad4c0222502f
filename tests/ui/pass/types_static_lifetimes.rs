use std::borrow::Cow;

use inngest_failure::{Dispatcher, HandlerError, State, on_failure};

#[derive(Clone)]
struct Config<'a> {
    name: Cow<'a, str>,
}

#[derive(Clone)]
struct Pair<A, const N: usize>(A, [u8; N]);

#[on_failure(function = "checkout")]
async fn undo(
    State(config): State<Config<'static>>,
    State(text): State<&'static [&'static str]>,
    State(Pair(call, bytes)): State<Pair<fn(&str) -> usize, 2>>,
) -> Result<String, HandlerError> {
    Ok(format!("{} {} {}", config.name, text.len(), call("two") + bytes.len()))
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let dispatcher = Dispatcher::builder()
        .app("shop")
        .state(Config { name: "shop".into() })
        .state(&["one"] as &'static [&'static str])
        .state(Pair(str::len as fn(&str) -> usize, [0; 2]))
        .build()
        .unwrap();
    let report = dispatcher.dispatch_json(EVENT).await.unwrap();
    assert_eq!(report.runs[0].result.as_ref().unwrap(), "shop 1 5");
}

const EVENT: &[u8] = br#"{"name":"inngest/function.failed","data":{"function_id":"shop-checkout",
    "run_id":"r1","error":{"message":"declined"},"event":{"data":{"order_id":"o1"}}}}"#;
