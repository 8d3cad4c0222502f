//! What the layer lets through, and what it refuses.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use inngest_failure::{Api, handlers, on_failure, sdk};
use serde_json::{Value, json};
use tests::http::{KEY, OTHER_KEY, header, json as read, nowhere, signature, signed};

use crate::{
    builder, event, handler, open,
    server::{Call, Server, body, request},
};

static RAN: AtomicUsize = AtomicUsize::new(0);

#[on_failure(function = "checkout")]
async fn counts() {
    RAN.fetch_add(1, Ordering::SeqCst);
}

const FUNCTION: &str = "shop-checkout-failure";

async fn server(layer: Option<sdk::Layer>) -> Server {
    let dispatcher = builder().register(handlers![counts]).build().unwrap();
    // The SDK has the primary key only, as from the environment.
    Server::start(handler(&dispatcher).signing_key(KEY), layer).await
}

fn cloud() -> sdk::Layer {
    let api = Api::builder().dev(false).signing_key(KEY).signing_key_fallback(OTHER_KEY);
    sdk::Layer::new(api.api_origin(nowhere()).build().unwrap()).unwrap()
}

fn unsigned() -> Request<Bytes> {
    request(FUNCTION, body(&event(), &Call::default()))
}

fn at(key: &str, from_now: i64) -> Request<Bytes> {
    let mut request = unsigned();
    let signature = signature(key, request.body(), from_now);
    request.headers_mut().insert("x-inngest-signature", signature.parse().unwrap());
    request
}

fn with(mut request: Request<Bytes>, name: &'static str, value: &str) -> Request<Bytes> {
    request.headers_mut().append(name, value.parse().unwrap());
    request
}

#[tokio::test]
async fn in_cloud_mode_only_what_inngest_signed_runs() {
    let server = server(Some(cloud())).await;
    let before = RAN.load(Ordering::SeqCst);
    let mut changed = at(KEY, 0);
    *changed.body_mut() = body(&event(), &Call { attempt: 1, ..Call::default() }).into();
    let forged = "signkey-test-0123456789abcdef0123456789abcdef";
    let again = signature(KEY, unsigned().body(), 0);
    for (what, refused) in [
        ("unsigned", unsigned()),
        ("unsigned, from a cloud", with(unsigned(), "x-inngest-server-kind", "cloud")),
        ("too old", at(KEY, -301)),
        ("from the future", at(KEY, 330)),
        ("an hour ahead", at(KEY, 3600)),
        ("another key", at(forged, 0)),
        ("another body", changed),
        ("two signatures", with(at(KEY, 0), "x-inngest-signature", &again)),
        ("garbage", with(unsigned(), "x-inngest-signature", "t=1")),
        ("no JSON", request(FUNCTION, "{")),
        ("no function", Request::post("/api/inngest").body("{}".into()).unwrap()),
    ] {
        let response = server.send(refused).await;
        assert_eq!(response.status(), 401, "{what}");
        assert_eq!(read(&response)["name"], "Unauthorized", "{what}");
        assert_eq!(header(&response, "x-inngest-no-retry"), "false", "{what}");
        assert!(header(&response, "x-inngest-sdk").starts_with("inngest-failure:v"), "{what}");
    }
    assert_eq!(RAN.load(Ordering::SeqCst), before);
    for accepted in [
        at(KEY, 0),
        at(KEY, -299),
        at(KEY, 299),
        at(OTHER_KEY, 0),
        with(at(KEY, 0), "x-inngest-server-kind", "cloud"),
        with(at(OTHER_KEY, 0), "x-inngest-server-kind", "cloud"),
    ] {
        let response = server.send(accepted).await;
        assert_eq!(response.status(), 200, "{:?}", response.body());
    }
    assert_eq!(RAN.load(Ordering::SeqCst), before + 6);
}

/// What makes the layer necessary; if this fails the SDK has learnt it.
#[tokio::test]
async fn without_the_layer_the_sdk_runs_what_nobody_signed() {
    let server = server(None).await;
    assert_eq!(server.send(unsigned()).await.status(), 200);
    assert_eq!(server.send(at(KEY, 3600)).await.status(), 200);
    assert_eq!(server.send(at(OTHER_KEY, 0)).await.status(), 500);
}

#[tokio::test]
async fn in_dev_mode_a_signature_counts_only_if_there_is_one_and_a_key() {
    let keyless = server(Some(open())).await;
    assert_eq!(keyless.send(unsigned()).await.status(), 200);
    assert_eq!(keyless.send(at(OTHER_KEY, 0)).await.status(), 200);
    let api = Api::builder().dev(true).signing_key(KEY).build().unwrap();
    let keyed = server(Some(sdk::Layer::new(api).unwrap())).await;
    assert_eq!(keyed.send(unsigned()).await.status(), 200);
    assert_eq!(keyed.send(at(KEY, 0)).await.status(), 200);
    assert_eq!(keyed.send(at(OTHER_KEY, 0)).await.status(), 401);
}

#[tokio::test]
async fn a_body_is_read_up_to_the_size_of_a_call() {
    let server = server(Some(cloud())).await;
    let padded = |bytes: usize| {
        let mut call: Value = serde_json::from_str(&body(&event(), &Call::default())).unwrap();
        call["ctx"]["padding"] = "x".repeat(bytes).into();
        signed(request(FUNCTION, call.to_string()), KEY)
    };
    // More than axum takes by default.
    assert_eq!(server.send(padded(3_000_000)).await.status(), 200);
    let response = server.send(padded(4 * 1024 * 1024)).await;
    assert_eq!(response.status(), 413);
    assert_eq!(read(&response)["name"], "PayloadTooLarge");
}

#[tokio::test]
async fn the_layer_may_be_there_twice() {
    let dispatcher = builder().register(handlers![counts]).build().unwrap();
    let methods = axum_06::routing::get(inngest::serve::axum::introspect)
        .post(inngest::serve::axum::invoke::<Value, inngest::result::Error>);
    let app = axum_06::Router::new()
        .route("/api/inngest", methods)
        .route_layer(axum_06::middleware::map_response(encoded))
        .route_layer(cloud())
        .layer(cloud())
        .with_state(std::sync::Arc::new(handler(&dispatcher)));
    let server = Server::serve(app);
    assert_eq!(server.send(at(KEY, 0)).await.status(), 200);
    assert_eq!(server.send(unsigned()).await.status(), 401);
    // An answer that takes another's place takes that one's encoding from it.
    let not_a_failure = signed(
        request(FUNCTION, body(&event(), &Call::default()).replace("function.failed", "x")),
        KEY,
    );
    let response = server.send(not_a_failure).await;
    assert_eq!(response.status(), 400);
    assert_eq!(header(&response, "content-encoding"), "");
    assert_eq!(read(&response)["name"], "ParseError");
}

/// Says that an answer is encoded.
async fn encoded(mut response: axum_06::response::Response) -> axum_06::response::Response {
    let gzip = axum_06::http::HeaderValue::from_static("gzip");
    response.headers_mut().insert("content-encoding", gzip);
    response
}

fn get(signature: Option<String>) -> Request<Bytes> {
    let request = Request::get("/api/inngest").body(Bytes::new()).unwrap();
    match signature {
        Some(signature) => with(request, "x-inngest-signature", &signature),
        None => request,
    }
}

#[tokio::test]
async fn introspection_and_sync_pass() {
    let server = server(Some(cloud())).await;
    let body = |response: Response<Bytes>| {
        assert_eq!(response.status(), 200);
        read(&response)
    };
    for signature in [None, Some(signature(KEY, b"", 0)), Some(signature(KEY, b"", 3600))] {
        let shown = body(server.send(get(signature)).await);
        assert_eq!(shown["function_count"], 1);
        // The SDK is in dev mode unless `INNGEST_MODE` says otherwise, and then shows no more than that.
        assert_eq!(shown["authentication_succeeded"], json!(null));
    }
    let request = Request::put("/api/inngest").body(Bytes::new()).unwrap();
    let response = server.send(request).await;
    // It was not refused: nobody listens where the SDK wants to register.
    assert_ne!(response.status(), 401);
}

#[test]
fn cloud_mode_without_a_key_is_refused_at_start_up() {
    let api = Api::builder().dev(false).build().unwrap();
    let error = sdk::Layer::new(api).unwrap_err().to_string();
    assert!(error.contains("set `INNGEST_SIGNING_KEY`"), "{error}");
}
