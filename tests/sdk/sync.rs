//! The functions that the SDK registers.

use http::Request;
use inngest::{client::Inngest, handler::Handler, result::Error};
use inngest_failure::{handlers, on_failure, sdk};
use serde_json::{Value, json};
use tests::http::{Api, KEY};

use crate::{builder, open, server::Server};

/// Undo it.
#[on_failure(function = "checkout", retries = 5, error = "CardError")]
async fn undo_checkout() {}

#[on_failure(function = "pick_parcel", app = "depot", cancelled, name = "Unpick")]
async fn unpick() {}

#[on_failure(fallback, id = "Rest_Of_All")]
async fn rest() {}

#[tokio::test]
async fn the_sync_has_a_function_for_each_trigger_of_each_handler() {
    let api = Api::start(&[(200, r#"{"ok":true,"modified":true}"#)]).await;
    let dispatcher = builder().register(handlers![undo_checkout, unpick, rest]).build().unwrap();
    let client = Inngest::new("shop").api_origin(&api.origin());
    let mut handler: Handler<Value, Error> = Handler::new(&client).signing_key(KEY);
    handler.register_fns(sdk::servable_fns(&dispatcher, &client));
    let server = Server::start(handler, Some(open())).await;
    let host = format!("localhost:{}", server.address.port());
    let request = Request::put("/api/inngest").header("host", &host).body("".into()).unwrap();
    let response = server.send(request).await;
    assert_eq!(response.status(), 200, "{:?}", response.body());

    let received = api.received();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].uri().path(), "/fn/register");
    assert!(
        received[0].headers()["authorization"]
            .to_str()
            .unwrap()
            .starts_with("Bearer signkey-test-")
    );
    let mut payload: Value = serde_json::from_slice(received[0].body()).unwrap();
    assert_eq!(payload["appName"], "shop");
    assert_eq!(payload["url"], format!("http://{host}/api/inngest"));
    let functions = payload["functions"].as_array_mut().unwrap();
    functions.sort_by_key(|function| function["id"].as_str().unwrap().to_owned());

    let function = |id: &str, name: &str, retries: u32, event: &str, expression: &str| {
        json!({
            "id": id, "name": name,
            "triggers": [{ "event": format!("inngest/function.{event}"), "expression": expression }],
            "steps": { "step": {
                "id": "step", "name": "step", "retries": { "attempts": retries },
                "runtime": { "type": "http", "url": format!("http://{host}/api/inngest?fnId={id}&step=step") },
            } },
        })
    };
    let checkout = "event.data.function_id == 'shop-checkout'";
    let card = "event.data.error.name == 'CardError'";
    let parcel = "event.data.function_id == 'depot-pick_parcel'";
    let rest = format!("!({parcel}) && !({checkout} && {card})");
    let expected = json!([
        function(
            "shop-checkout-failure",
            "checkout (failure)",
            5,
            "failed",
            &format!("{checkout} && {card}")
        ),
        function("shop-depot-pick-parcel-failure", "Unpick", 3, "failed", parcel),
        function(
            "shop-depot-pick-parcel-failure-cancelled",
            "Unpick (cancelled)",
            3,
            "cancelled",
            parcel
        ),
        function("shop-rest-of-all", "fallback (failure)", 3, "failed", &rest),
    ]);
    assert_eq!(Value::from(functions.clone()), expected, "{functions:#?}");
}
