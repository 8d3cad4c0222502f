//! Introspection: what anybody may know of the app, and what Inngest may.

use std::collections::BTreeSet;

use bytes::Bytes;
use http::{Request, Response};
use inngest_failure::{Dispatcher, handlers, on_failure};
use serde_json::{Value, json};
use tests::http::{KEY, OTHER_KEY, PATH, Server, header, json, signed};

use crate::{APP, builder, cloud, dev};

/// Give the money back.
#[on_failure(function = "checkout")]
async fn refund() {}

#[on_failure(fallback)]
async fn rest() {}

fn dispatcher() -> Dispatcher {
    builder().register(handlers![refund, rest]).build().unwrap()
}

fn get() -> Request<Bytes> {
    Request::get(PATH).body(Bytes::new()).unwrap()
}

fn open(succeeded: Value, mode: &str) -> Value {
    json!({
        "authentication_succeeded": succeeded,
        "function_count": 2,
        "has_event_key": true,
        "has_signing_key": true,
        "has_signing_key_fallback": false,
        "mode": mode,
        "schema_version": "2024-05-24",
    })
}

async fn ask(request: Request<Bytes>) -> Response<Bytes> {
    let endpoint = cloud(dispatcher())
        .event_key("event-key-1")
        .env("branch")
        .api_origin("https://api.example.com/")
        .event_api_origin("https://events.example.com")
        .serve_origin("https://shop.example.com")
        .serve_path(PATH)
        .build()
        .unwrap();
    Server::start(endpoint).await.send(request).await
}

#[tokio::test]
async fn who_does_not_sign_learns_how_many_functions_there_are_and_which_keys() {
    let response = ask(get()).await;
    assert_eq!(response.status(), 200);
    assert_eq!(json(&response), open(Value::Null, "cloud"));
    assert!(header(&response, "x-inngest-sdk").starts_with("inngest-failure:v"));
}

#[tokio::test]
async fn who_signs_badly_learns_no_more() {
    assert_eq!(json(&ask(signed(get(), OTHER_KEY)).await), open(json!(false), "cloud"));
    let mut request = get();
    request.headers_mut().insert("x-inngest-signature", "s=1".parse().unwrap());
    assert_eq!(json(&ask(request).await), open(json!(false), "cloud"));
}

#[tokio::test]
async fn who_signs_learns_the_rest_and_no_secret() {
    let response = ask(signed(get(), KEY)).await;
    assert_eq!(response.status(), 200);
    let mut told = json(&response);
    let text = String::from_utf8(response.body().to_vec()).unwrap();
    for secret in [KEY, &KEY["signkey-test-".len()..], "event-key-1"] {
        assert!(!text.contains(secret), "{text}");
    }
    for hash in ["signing_key_hash", "event_key_hash"] {
        let hash = told.as_object_mut().unwrap().remove(hash).unwrap();
        assert!(hash.as_str().unwrap().len() >= 8, "{hash}");
    }
    let handlers = told["extra"]["handlers"].take();
    let ids: Vec<&Value> =
        handlers.as_array().unwrap().iter().map(|handler| &handler["id"]).collect();
    assert_eq!(ids, ["rest", "shop-checkout-failure"]);
    assert_eq!(handlers[1]["selector"], "shop-checkout");
    assert_eq!(handlers[1]["description"], "Give the money back.");
    assert!(handlers[1]["location"].as_str().unwrap().contains("introspection.rs:"));

    let mut expected = open(json!(true), "cloud");
    expected.as_object_mut().unwrap().extend(
        json!({
            "app_id": APP,
            "api_origin": "https://api.example.com",
            "env": "branch",
            "event_api_origin": "https://events.example.com",
            "extra": { "handlers": null },
            "framework": "tower",
            "sdk_language": "rust",
            "sdk_version": env!("CARGO_PKG_VERSION"),
            "serve_origin": "https://shop.example.com",
            "serve_path": PATH,
            "signing_key_fallback_hash": null,
        })
        .as_object()
        .unwrap()
        .clone(),
    );
    assert_eq!(told, expected);
}

#[tokio::test]
async fn the_keys_are_those_of_the_schema() {
    let response = ask(signed(get(), KEY)).await;
    let told = json(&response);
    let keys: BTreeSet<&str> = told.as_object().unwrap().keys().map(String::as_str).collect();
    let schema = BTreeSet::from([
        "api_origin",
        "app_id",
        "authentication_succeeded",
        "env",
        "event_api_origin",
        "event_key_hash",
        "extra",
        "framework",
        "function_count",
        "has_event_key",
        "has_signing_key",
        "has_signing_key_fallback",
        "mode",
        "schema_version",
        "sdk_language",
        "sdk_version",
        "serve_origin",
        "serve_path",
        "signing_key_fallback_hash",
        "signing_key_hash",
    ]);
    assert_eq!(keys, schema);
}

#[tokio::test]
async fn dev_mode_is_told() {
    let endpoint = dev(dispatcher()).signing_key(KEY).event_key("any").build().unwrap();
    let server = Server::start(endpoint).await;
    assert_eq!(json(&server.send(get()).await), open(Value::Null, "dev"));
    assert_eq!(json(&server.send(signed(get(), KEY)).await)["authentication_succeeded"], true);
}
