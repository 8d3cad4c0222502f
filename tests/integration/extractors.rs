//! What handlers are given.

use std::convert::Infallible;

use inngest_failure::{
    Context, Failure, FailureEvent, FromFailure, HandlerError, MissingState, Needs, ParseError,
    RunContext, RunError, State, handlers, on_failure,
};
use serde::Deserialize;
use serde_json::json;

use crate::{builder, failed};

#[derive(Clone)]
struct Shop(&'static str);

#[derive(Clone)]
struct Depth(u32);

#[derive(Deserialize)]
struct Order {
    order_id: String,
}

/// Two extractors and the context itself in one.
struct Reference(String);

impl FromFailure for Reference {
    type Rejection = HandlerError;

    async fn from_failure(cx: &Context) -> Result<Self, HandlerError> {
        let State(shop) = State::<Shop>::from_failure(cx).await?;
        let failure = Failure::<Order>::from_failure(cx).await?;
        let depth = cx.state::<Depth>().map_or(0, |depth| depth.0);
        let Order { order_id } = failure.event.data;
        Ok(Self(format!("{}/{order_id}/{depth}/{}", shop.0, cx.run().handler_id)))
    }

    fn needs(needs: &mut Needs) {
        State::<Shop>::needs(needs);
    }
}

#[on_failure(function = "everything")]
async fn everything(
    Failure { event, kind, .. }: Failure<Order>,
    raw: FailureEvent,
    State(Shop(name)): State<Shop>,
    State(depth): State<Depth>,
    Reference(reference): Reference,
    run: RunContext,
    tried: Result<Failure<Vec<u8>>, ParseError>,
) -> Result<serde_json::Value, Infallible> {
    Ok(json!({
        "order": event.data.order_id,
        "kind": format!("{kind:?}"),
        "raw": raw.function_id(),
        "shop": name,
        "depth": depth.0,
        "reference": reference,
        "attempt": run.attempt,
        "tried": tried.unwrap_err().path(),
    }))
}

#[tokio::test]
async fn every_extractor_takes_its_value() {
    let dispatcher = builder()
        .register(handlers![everything])
        .state(Shop("corner"))
        .state(Depth(3))
        .build()
        .unwrap();
    let dispatch =
        dispatcher.dispatch(failed("shop-everything", json!({ "order_id": "o1" }))).await;
    assert_eq!(
        *dispatch.runs[0].result.as_ref().unwrap(),
        json!({
            "order": "o1",
            "kind": "Failed",
            "raw": "shop-everything",
            "shop": "corner",
            "depth": 3,
            "reference": "corner/o1/3/shop-everything-failure",
            "attempt": 0,
            "tried": "data.event.data",
        })
    );
}

#[on_failure(function = "typed", retries = 5)]
async fn typed(_: Failure<Order>) {
    unreachable!("its payload does not fit");
}

#[tokio::test]
async fn a_payload_that_does_not_fit_is_final_and_names_path_and_type() {
    let dispatcher = builder().register(handlers![typed]).build().unwrap();
    let dispatch = dispatcher.dispatch(failed("shop-typed", json!({ "order_id": 7 }))).await;
    assert_eq!(dispatch.runs[0].attempts, 1);
    let Err(RunError::Payload(error)) = &dispatch.runs[0].result else { panic!("{dispatch:?}") };
    assert_eq!(
        error.to_string(),
        "the original event's data does not fit `integration::extractors::Order`: at \
         `data.event.data.order_id`: invalid type: integer, expected a string; let the type take \
         what the event holds"
    );
}

#[on_failure(function = "wrapped", retries = 5)]
async fn wrapped(_: Reference) {
    unreachable!("its payload does not fit");
}

#[tokio::test]
async fn inside_an_extractor_of_the_users_it_is_final_too() {
    let dispatcher = builder().register(handlers![wrapped]).state(Shop("corner")).build().unwrap();
    let dispatch = dispatcher.dispatch(failed("shop-wrapped", json!({}))).await;
    assert_eq!(dispatch.runs[0].attempts, 1);
    let Err(RunError::Payload(error)) = &dispatch.runs[0].result else { panic!("{dispatch:?}") };
    assert_eq!(error.path(), "data.event.data");
}

/// Does not say what it needs.
struct Forgetful;

impl FromFailure for Forgetful {
    type Rejection = MissingState;

    async fn from_failure(cx: &Context) -> Result<Self, MissingState> {
        State::<Shop>::from_failure(cx).await.map(|_| Self)
    }
}

#[on_failure(function = "forgetful", retries = 5)]
async fn forgetful(_: Forgetful) {}

#[tokio::test]
async fn state_that_nobody_declared_is_a_final_error_with_the_remedy() {
    let dispatcher = builder().register(handlers![forgetful]).build().unwrap();
    let dispatch = dispatcher.dispatch(failed("shop-forgetful", json!({}))).await;
    assert_eq!(dispatch.runs[0].attempts, 1);
    let Err(RunError::Failed(error)) = &dispatch.runs[0].result else { panic!("{dispatch:?}") };
    assert_eq!(
        error.to_string(),
        "the dispatcher has no state of type `integration::extractors::Shop`; give it one with \
         `.state(..)`, and name it in the extractor's `needs` so that `build()` finds it missing"
    );
}

#[test]
fn needs_of_extractors_inside_extractors_are_checked() {
    let error = builder().register(handlers![wrapped]).build().unwrap_err();
    assert!(error.to_string().contains("`integration::extractors::Shop`"), "{error}");
}
