//! Sync: what Inngest is told, out of band and in band, and what becomes of its answer.

use bytes::Bytes;
use http::{Request, Response};
use inngest_failure::{Dispatcher, handlers, on_failure, serve::EndpointBuilder};
use serde_json::{Value, json};
use tests::{
    Log, fixture,
    http::{Api, KEY, OTHER_KEY, PATH, Server, header, json, nowhere, signed},
};

use crate::{APP, builder, cloud, dev};

#[on_failure(function = "plain-error", app = "cap4")]
async fn of_javascript() {}

#[on_failure(function = "plain-error", app = "cappy", retries = 0)]
async fn of_python() {}

#[on_failure(
    function = "report*",
    cancelled,
    id = "reports",
    name = "All reports",
    retries = 20,
    concurrency = 10,
    throttle = "10/1m",
    rate_limit = "1/90s",
    priority = -100,
    idempotency = "event.data.event.data.order_id"
)]
async fn reports() {}

#[on_failure(fallback)]
async fn rest() {}

fn dispatcher() -> Dispatcher {
    builder().register(handlers![of_javascript, of_python, reports, rest]).build().unwrap()
}

fn put(query: &str) -> Request<Bytes> {
    Request::put(format!("{PATH}{query}")).body(Bytes::new()).unwrap()
}

const OK: &str = r#"{"ok":true,"modified":true,"sync_id":"s1","app_id":"a1"}"#;

/// A sync through an endpoint that is set up like this: what Inngest was asked, and what was answered.
async fn sync(
    answers: &[(u16, &str)],
    request: Request<Bytes>,
    set_up: impl FnOnce(EndpointBuilder) -> EndpointBuilder,
) -> (Vec<Request<Bytes>>, Response<Bytes>) {
    let api = Api::start(answers).await;
    let endpoint = set_up(cloud(dispatcher()).api_origin(api.origin())).build().unwrap();
    let server = Server::start(endpoint).await;
    let response = server.send(request).await;
    // Whatever came of it, the endpoint is alive.
    let again = server.send(Request::get(PATH).body(Bytes::new()).unwrap()).await;
    assert_eq!(again.status(), 200);
    (api.received(), response)
}

/// What an app of another SDK told Inngest of this function.
fn recorded(file: &str, id: &str) -> Value {
    let functions: Value = serde_json::from_slice(&fixture(file)).unwrap();
    let found = functions.as_array().unwrap().iter().find(|function| function["id"] == id);
    found.unwrap().clone()
}

fn function<'a>(registration: &'a Value, id: &str) -> &'a Value {
    let functions = registration["functions"].as_array().unwrap();
    functions
        .iter()
        .find(|function| function["id"] == id)
        .unwrap_or_else(|| panic!("{registration}"))
}

async fn registration() -> Value {
    let (received, _) = sync(&[(200, OK)], put(""), |endpoint| {
        endpoint.serve_origin("http://127.0.0.1:3001").serve_path("/api/inngest")
    })
    .await;
    serde_json::from_slice(received[0].body()).unwrap()
}

#[tokio::test]
async fn functions_are_those_that_other_sdks_register_but_for_what_is_ours() {
    let registration = registration().await;
    for (file, id, attempts) in [
        ("sync/js-v4.plain-error.functions.json", "cap4-plain-error-failure", 3),
        ("sync/py.plain-error.functions.json", "cappy-plain-error-failure", 0),
    ] {
        let mut expected = recorded(file, id);
        // Python's empty lists say what leaving them out says.
        for empty in ["cancel", "concurrency"] {
            assert!(
                [None, Some(json!([]))].contains(&expected.as_object_mut().unwrap().remove(empty))
            );
        }
        // The app is one of its own, so its id comes before that of the handler.
        let synced_id = format!("{APP}-{id}");
        expected["id"] = json!(synced_id);
        let step = &mut expected["steps"]["step"];
        step["runtime"]["url"] =
            json!(format!("http://127.0.0.1:3001/api/inngest?fnId={synced_id}&stepId=step"));
        // JavaScript always retries once, Python never: here the attribute says how often.
        step["retries"]["attempts"] = json!(attempts);
        assert_eq!(*function(&registration, &synced_id), expected);
    }
}

#[tokio::test]
async fn every_setting_of_the_attribute_is_one_of_the_function() {
    let id = format!("{APP}-reports");
    let expression = "event.data.function_id.startsWith('shop-report')";
    assert_eq!(
        *function(&registration().await, &id),
        json!({
            "id": id,
            "name": "All reports",
            "triggers": [
                { "event": "inngest/function.failed", "expression": expression },
                { "event": "inngest/function.cancelled", "expression": expression },
            ],
            "steps": { "step": {
                "id": "step",
                "name": "step",
                "runtime": {
                    "type": "http",
                    "url": format!("http://127.0.0.1:3001/api/inngest?fnId={id}&stepId=step"),
                },
                "retries": { "attempts": 20 },
            } },
            "concurrency": 10,
            "throttle": { "limit": 10, "period": "1m" },
            "rateLimit": { "limit": 1, "period": "90s" },
            "priority": { "run": "-100" },
            "idempotency": "event.data.event.data.order_id",
        })
    );
}

#[tokio::test]
async fn a_fallback_takes_what_no_other_handler_names() {
    let registration = registration().await;
    let rest = function(&registration, &format!("{APP}-rest"));
    let expression = rest["triggers"][0]["expression"].as_str().unwrap();
    for term in [
        "!(event.data.function_id == 'cap4-plain-error')",
        "!(event.data.function_id == 'cappy-plain-error')",
        "!(event.data.function_id.startsWith('shop-report'))",
    ] {
        assert!(expression.contains(term), "{expression}");
    }
}

#[tokio::test]
async fn a_put_registers_the_app_as_other_sdks_do() {
    let mut request = put("?deployId=d%201");
    let headers = request.headers_mut();
    headers.insert("host", "shop.example.com".parse().unwrap());
    headers.insert("x-inngest-server-kind", "cloud".parse().unwrap());
    let (received, response) = sync(&[(200, OK)], request, |endpoint| endpoint.env("branch")).await;
    assert_eq!(response.status(), 200);
    assert_eq!(json(&response), json!({ "message": "successfully synced", "modified": true }));

    let [registered] = received.as_slice() else { panic!("one request: {received:?}") };
    assert_eq!(registered.method(), "POST");
    assert_eq!(registered.uri(), "/fn/register?deployId=d+1");
    let header = |name| registered.headers().get(name).map_or("", |value| value.to_str().unwrap());
    assert!(header("authorization").starts_with("Bearer signkey-test-"));
    assert!(!header("authorization").contains(&KEY["signkey-test-".len()..]));
    assert_eq!(header("x-inngest-env"), "branch");
    assert_eq!(header("x-inngest-expected-server-kind"), "cloud");
    assert_eq!(header("content-type"), "application/json");
    assert!(header("x-inngest-sdk").starts_with("inngest-failure:v"));

    let mut body: Value = serde_json::from_slice(registered.body()).unwrap();
    let functions = body["functions"].take();
    assert_eq!(functions.as_array().unwrap().len(), 4);
    let url = functions[0]["steps"]["step"]["runtime"]["url"].as_str().unwrap();
    assert!(url.starts_with("https://shop.example.com/api/failures?fnId=shop-failures-"), "{url}");
    assert_eq!(
        body,
        json!({
            "url": "https://shop.example.com/api/failures",
            "deployType": "ping",
            "framework": "tower",
            "appName": APP,
            "functions": null,
            "sdk": format!("inngest-failure:v{}", env!("CARGO_PKG_VERSION")),
            "v": "0.1",
        })
    );
}

async fn url_of(
    request: Request<Bytes>,
    set_up: impl FnOnce(EndpointBuilder) -> EndpointBuilder,
) -> Value {
    let (received, _) = sync(&[(200, OK)], request, set_up).await;
    serde_json::from_slice::<Value>(received[0].body()).unwrap()["url"].take()
}

#[tokio::test]
async fn the_url_is_what_is_configured_and_else_what_the_request_says() {
    let to = |headers: &[(&'static str, &str)]| {
        let mut request = put("?deployId=1");
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        request
    };
    let as_it_is = |endpoint| endpoint;
    let host = ("host", "shop.example.com:8443");
    assert_eq!(url_of(to(&[host]), as_it_is).await, "https://shop.example.com:8443/api/failures");
    let proxied = to(&[host, ("x-forwarded-proto", "http, https")]);
    assert_eq!(url_of(proxied, as_it_is).await, "http://shop.example.com:8443/api/failures");
    let configured = |endpoint: EndpointBuilder| endpoint.serve_origin("https://a.example.com/");
    assert_eq!(url_of(to(&[host]), configured).await, "https://a.example.com/api/failures");
    let path = |endpoint: EndpointBuilder| endpoint.serve_path("/other");
    assert_eq!(url_of(to(&[host]), path).await, "https://shop.example.com:8443/other");
    let server = |endpoint: EndpointBuilder| endpoint.dev(true);
    assert_eq!(url_of(to(&[host]), server).await, "http://shop.example.com:8443/api/failures");
}

#[tokio::test]
async fn a_host_that_is_none_is_refused() {
    let mut request = put("");
    request.headers_mut().insert("host", "user@shop".parse().unwrap());
    let (received, response) = sync(&[(200, OK)], request, |endpoint| endpoint).await;
    assert!(received.is_empty());
    assert_eq!(response.status(), 500);
    assert!(json(&response)["message"].as_str().unwrap().contains("set `INNGEST_SERVE_ORIGIN`"));
}

/// A sync that comes to nothing: what is told and logged.
async fn fails(answers: &[(u16, &str)], fallback: bool) -> (usize, String) {
    let (log, _guard) = Log::start(tracing::Level::ERROR);
    let (received, response) = sync(answers, put(""), |endpoint| match fallback {
        true => endpoint.signing_key_fallback(OTHER_KEY),
        false => endpoint,
    })
    .await;
    assert_eq!(response.status(), 500);
    let answer = json(&response);
    assert_eq!(answer["modified"], false);
    let message = answer["message"].as_str().unwrap().to_owned();
    assert!(log.text().contains("sync failed"), "{}", log.text());
    (received.len(), message)
}

#[tokio::test]
async fn an_error_of_the_server_is_passed_on() {
    let (asked, message) =
        fails(&[(400, r#"{"ok":false,"error":"app_id is taken"}"#)], false).await;
    assert_eq!(asked, 1);
    assert!(
        message.contains("refuses the functions (400 Bad Request): app_id is taken"),
        "{message}"
    );
}

#[tokio::test]
async fn a_key_that_is_refused_is_followed_by_the_fallback() {
    let (received, response) = sync(&[(401, "{}"), (200, OK)], put(""), |endpoint| {
        endpoint.signing_key_fallback(OTHER_KEY)
    })
    .await;
    assert_eq!(response.status(), 200);
    let [first, second] = received.as_slice() else { panic!("two requests: {received:?}") };
    assert_ne!(first.headers()["authorization"], second.headers()["authorization"]);
    assert_eq!(first.body(), second.body());

    let (asked, message) = fails(&[(403, "no"), (401, "{\"error\":\"no\"}")], true).await;
    assert_eq!(asked, 2);
    assert!(message.contains("refuses both signing keys (401 Unauthorized: no)"), "{message}");
    let (asked, message) = fails(&[(401, "")], false).await;
    assert_eq!(asked, 1);
    assert!(message.contains("refuses the signing key (401 Unauthorized: nothing)"), "{message}");
    assert!(
        message.contains("see that `INNGEST_SIGNING_KEY` is that of this environment"),
        "{message}"
    );
}

#[tokio::test]
async fn a_server_that_is_none_of_inngest_is_told_apart() {
    for body in ["<html>welcome</html>", "", "[]", "{}", r#"{"ok":false}"#] {
        let (_, message) = fails(&[(200, body)], false).await;
        assert!(message.contains("answers 200 OK, but not as Inngest does"), "{body}: {message}");
        assert!(message.contains("see that the API's origin is right"), "{message}");
    }
}

#[tokio::test]
async fn what_a_server_says_is_cut_short_and_holds_no_key() {
    let secret = &KEY["signkey-test-".len()..];
    let (_, message) = fails(&[(500, &format!("{secret} {}", "x".repeat(10_000)))], false).await;
    assert!(message.contains("[redacted]") && !message.contains(secret), "{message}");
    assert!(message.len() < 1_000, "{}", message.len());
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_with_what_to_do() {
    let origin = nowhere();
    let server = Server::start(dev(dispatcher()).dev_server(&origin).build().unwrap()).await;
    let message = json(&server.send(put("")).await)["message"].as_str().unwrap().to_owned();
    assert!(
        message.starts_with(&format!("can't reach Inngest at `{origin}`; start the dev server")),
        "{message}"
    );
    assert!(message.contains("refused"), "{message}");
}

#[tokio::test]
async fn a_program_can_sync_when_it_starts() {
    let api = Api::start(&[(200, OK), (200, r#"{"ok":true,"modified":false}"#)]).await;
    let endpoint = || cloud(dispatcher()).api_origin(api.origin()).serve_path(PATH);
    let known = endpoint().serve_origin("https://shop.example.com").build().unwrap();
    assert!(known.sync().await.unwrap().modified);
    assert!(!known.sync().await.unwrap().modified);
    let body: Value = serde_json::from_slice(api.received()[0].body()).unwrap();
    assert_eq!(body["url"], "https://shop.example.com/api/failures");

    let error = known.sync().await.unwrap_err();
    assert!(error.to_string().contains("no more answers"), "{error}");
    let error = endpoint().build().unwrap().sync().await.unwrap_err();
    assert!(error.to_string().contains("set `INNGEST_SERVE_ORIGIN`"), "{error}");
    let endpoint = cloud(dispatcher()).serve_origin("https://shop.example.com").build().unwrap();
    let error = endpoint.sync().await.unwrap_err();
    assert!(error.to_string().contains("set `INNGEST_SERVE_PATH`"), "{error}");
}

fn in_band(body: &str) -> Request<Bytes> {
    let mut request = put("");
    request.headers_mut().insert("x-inngest-sync-kind", "in_band".parse().unwrap());
    *request.body_mut() = body.to_owned().into();
    request
}

#[tokio::test]
async fn in_band_the_functions_are_the_answer() {
    let request = in_band(r#"{"url":"https://shop.example.com/api/failures"}"#);
    let (received, response) = sync(&[], signed(request, KEY), |endpoint| endpoint).await;
    assert!(received.is_empty());
    assert_eq!(response.status(), 200);
    assert_eq!(header(&response, "x-inngest-sync-kind"), "in_band");
    let mut answer = json(&response);
    let functions = answer["functions"].take();
    assert_eq!(functions.as_array().unwrap().len(), 4);
    let url = functions[0]["steps"]["step"]["runtime"]["url"].as_str().unwrap();
    assert!(url.starts_with("https://shop.example.com/api/failures?fnId="), "{url}");
    let inspection = answer["inspection"].take();
    assert_eq!(inspection["authentication_succeeded"], true);
    assert_eq!(inspection["app_id"], APP);
    assert_eq!(
        answer,
        json!({
            "app_id": APP,
            "env": null,
            "framework": "tower",
            "functions": null,
            "inspection": null,
            "platform": null,
            "sdk_author": "inngest-failure",
            "sdk_language": "rust",
            "sdk_version": env!("CARGO_PKG_VERSION"),
            "url": "https://shop.example.com/api/failures",
        })
    );
}

#[tokio::test]
async fn in_band_the_url_is_what_is_configured_and_else_what_inngest_says() {
    let url = async |said: &str, set_up: fn(EndpointBuilder) -> EndpointBuilder| {
        let request = in_band(&json!({ "url": said }).to_string());
        let (_, response) = sync(&[], signed(request, KEY), set_up).await;
        let answer = json(&response);
        let call =
            answer["functions"][0]["steps"]["step"]["runtime"]["url"].as_str().unwrap().to_owned();
        (answer["url"].as_str().unwrap().to_owned(), call)
    };
    let (_, call) = url("https://h/api?bypass=abc#top", |endpoint| endpoint).await;
    assert!(call.starts_with("https://h/api?bypass=abc&fnId=shop-failures-"), "{call}");
    let (origin, _) = url("http://internal:3000/api/x", |endpoint| {
        endpoint.serve_origin("https://public.example.com")
    })
    .await;
    assert_eq!(origin, "https://public.example.com/api/x");
    let (path, _) = url("http://internal:3000/api/x", |endpoint| endpoint.serve_path("/y")).await;
    assert_eq!(path, "http://internal:3000/y");

    let request = signed(in_band(r#"{"url":"/api"}"#), KEY);
    assert_eq!(sync(&[], request, |endpoint| endpoint).await.1.status(), 400);
}

#[tokio::test]
async fn in_band_who_does_not_sign_learns_no_more_in_dev_mode_than_anywhere() {
    let server = Server::start(dev(dispatcher()).signing_key(KEY).build().unwrap()).await;
    let request = in_band(r#"{"url":"http://localhost:3000/api"}"#);
    let unsigned = json(&server.send(request.clone()).await);
    assert_eq!(unsigned["inspection"]["authentication_succeeded"], Value::Null);
    assert!(unsigned["inspection"].get("signing_key_hash").is_none());
    let signed = json(&server.send(signed(request, KEY)).await);
    assert_eq!(signed["inspection"]["authentication_succeeded"], true);
}

#[tokio::test]
async fn in_band_only_inngest_is_answered() {
    let request = in_band(r#"{"url":"https://shop.example.com"}"#);
    for request in [request.clone(), signed(request, OTHER_KEY)] {
        let (received, response) = sync(&[], request, |endpoint| endpoint).await;
        assert!(received.is_empty());
        assert_eq!(response.status(), 401);
    }
    let (_, response) = sync(&[], signed(in_band("{}"), KEY), |endpoint| endpoint).await;
    assert_eq!(response.status(), 400);
    let message = json(&response)["message"].as_str().unwrap().to_owned();
    assert!(message.contains("missing field `url`"), "{message}");
}

#[tokio::test]
async fn where_in_band_is_turned_off_the_functions_are_posted() {
    let request = in_band(r#"{"url":"https://shop.example.com"}"#);
    let (received, response) =
        sync(&[(200, OK)], signed(request, KEY), |endpoint| endpoint.in_band_sync(false)).await;
    assert_eq!(received.len(), 1);
    assert_eq!(header(&response, "x-inngest-sync-kind"), "");
    assert_eq!(json(&response)["modified"], true);
}
