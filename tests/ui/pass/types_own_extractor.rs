use inngest_failure::{
    Context, Dispatcher, Failure, FromFailure, HandlerError, Needs, ParseError, State, on_failure,
};

struct Reference(String);

impl FromFailure for Reference {
    type Rejection = HandlerError;

    async fn from_failure(cx: &Context) -> Result<Self, HandlerError> {
        let State(shop) = State::<&'static str>::from_failure(cx).await?;
        let failure = Failure::<serde_json::Value>::from_failure(cx).await?;
        Ok(Self(format!("{shop}/{}", failure.event.data["order_id"])))
    }

    fn needs(needs: &mut Needs) {
        State::<&'static str>::needs(needs);
    }
}

/// One with a parameter and a future that is written by hand.
struct Parsed<T>(T);

impl<T: serde::de::DeserializeOwned + Send> FromFailure for Parsed<T> {
    type Rejection = ParseError;

    fn from_failure(cx: &Context) -> impl Future<Output = Result<Self, ParseError>> + Send {
        std::future::ready(cx.event().parse::<T>().map(|failure| Self(failure.event.data)))
    }
}

#[on_failure(function = "checkout")]
async fn undo(
    Reference(reference): Reference,
    Parsed(data): Parsed<std::collections::BTreeMap<String, String>>,
) -> Result<String, HandlerError> {
    Ok(format!("{reference} {}", data["order_id"]))
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let dispatcher = Dispatcher::builder().app("shop").state("shop").build().unwrap();
    let report = dispatcher.dispatch_json(EVENT).await.unwrap();
    assert_eq!(report.runs[0].result.as_ref().unwrap(), "shop/\"o1\" o1");

    // What the extractor needs is checked, although nothing else mentions it.
    let error = Dispatcher::builder().build().unwrap_err().to_string();
    assert!(error.contains("`&str`"), "{error}");
}

const EVENT: &[u8] = br#"{"name":"inngest/function.failed","data":{"function_id":"shop-checkout",
    "run_id":"r1","error":{"message":"declined"},"event":{"data":{"order_id":"o1"}}}}"#;
