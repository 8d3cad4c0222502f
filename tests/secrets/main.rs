//! No secret in anything that comes out: everything that is logged, answered or shown in a run at trace level,
//! searched for the keys. One test, for what it listens to is the whole process.

use std::{fmt::Write, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use inngest_failure::{
    Api, Backoff, Dispatcher, Event, Failure, FailureEvent, HandlerError, Step, handlers,
    on_failure,
    serve::{Endpoint, EndpointBuilder},
};
use serde_json::{Value, json};
use tests::{
    Log,
    http::{Api as InngestApi, KEY, OTHER_KEY, PATH, Server, call, nowhere, signed},
};

const EVENT_KEY: &str = "9a8b7c6d5e4f-event-key";

#[on_failure(function = "checkout")]
async fn checkout(failure: Failure) -> Result<String, HandlerError> {
    match failure.event.data["act"].as_str() {
        Some("fail") => Err("the bank is closed".into()),
        Some("panic") => panic!("no such card"),
        _ => Ok("undone".to_owned()),
    }
}

#[on_failure(function = "checkout", id = "tell", retries = 1)]
async fn tell(step: Step) -> Result<(), HandlerError> {
    step.send_event("tell", Event::new("shop/undone", json!({}))).await?;
    Ok(())
}

fn event(act: &str) -> Value {
    json!({
        "name": "inngest/function.failed",
        "data": {
            "function_id": "shop-checkout", "run_id": "r1", "error": { "message": "card declined" },
            "event": { "data": { "act": act } },
        },
    })
}

fn body(act: &str) -> String {
    let ctx = json!({ "run_id": "r2", "attempt": 0, "use_api": act == "fetch" });
    json!({ "ctx": ctx, "event": event(act), "steps": {} }).to_string()
}

/// An HTTP client of the user's, whose errors name the URL.
#[derive(Clone)]
struct Talkative;

impl tower::Service<Request<Bytes>> for Talkative {
    type Response = Response<Full<Bytes>>;
    type Error = String;
    type Future = std::future::Ready<Result<Self::Response, String>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), String>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        std::future::ready(Err(format!("no route to {}", request.uri())))
    }
}

/// Events that are sent in process.
async fn sent_in_process(origin: &str, talkative: bool) -> String {
    let api = Api::builder().dev(false).event_key(EVENT_KEY).event_api_origin(origin);
    let api = if talkative { api.client(Talkative) } else { api }.build().unwrap();
    let dispatcher = Dispatcher::builder()
        .without_inventory()
        .app("shop")
        .backoff(Backoff::new().first(Duration::from_millis(1)))
        .api(api)
        .register(handlers![tell])
        .build()
        .unwrap();
    let event = FailureEvent::try_from(event("succeed")).unwrap();
    let dispatch = dispatcher.dispatch(event).await;
    format!("{dispatcher:?} {dispatch:?} {:?}\n", dispatch.runs[0].result)
}

fn endpoint(origin: &str) -> EndpointBuilder {
    let dispatcher = Dispatcher::builder()
        .without_inventory()
        .app("shop")
        .register(handlers![checkout, tell])
        .build()
        .unwrap();
    Endpoint::builder(dispatcher, "shop-failures")
        .dev(false)
        .signing_key(KEY)
        .signing_key_fallback(OTHER_KEY)
        .event_key(EVENT_KEY)
        .api_origin(origin)
        .event_api_origin(origin)
        .serve_origin("https://shop.example.com")
        .serve_path(PATH)
}

fn in_band(request: Request<Bytes>) -> Request<Bytes> {
    let (mut parts, _) = request.into_parts();
    parts.headers.insert("x-inngest-sync-kind", "in_band".parse().unwrap());
    Request::from_parts(parts, r#"{"url":"https://shop.example.com"}"#.into())
}

/// Everything that an endpoint can be asked, and everything that it answers.
async fn all_answers(server: &Server) -> String {
    let get = Request::get(PATH).body(Bytes::new()).unwrap();
    let put = Request::put(PATH).body(Bytes::new()).unwrap();
    let function = "shop-failures-shop-checkout-failure";
    let mut requests = vec![
        get.clone(),
        signed(get, KEY),
        put.clone(),
        in_band(put.clone()),
        signed(in_band(put), KEY),
    ];
    for act in ["succeed", "fail", "panic", "fetch"] {
        let call = call(function, body(act));
        requests.extend([call.clone(), signed(call.clone(), KEY), signed(call, OTHER_KEY)]);
    }
    requests.push(signed(call("shop-failures-tell", body("succeed")), KEY));
    requests.push(signed(call(function, "{"), KEY));
    requests.push(signed(call("unknown", "{}"), KEY));
    let mut answers = String::new();
    for request in requests {
        let response = server.send(request).await;
        writeln!(answers, "{response:?}").unwrap();
    }
    answers
}

#[tokio::test]
async fn nothing_that_comes_out_holds_a_secret() {
    let log = Log::start_for_all();
    let mut out = String::new();

    // Servers that accept, that refuse and repeat what they were sent, and that are not there.
    let registered = r#"{"ok":true,"modified":true,"ids":["id1"],"status":200}"#;
    let accepting = InngestApi::start(&[(200, registered); 12]).await;
    let bearer = {
        let endpoint = endpoint(&accepting.origin()).build().unwrap();
        endpoint.sync().await.unwrap();
        let received = accepting.received();
        let authorization = received[0].headers()["authorization"].to_str().unwrap();
        authorization.strip_prefix("Bearer ").unwrap().to_owned()
    };
    let repeating = format!("{KEY} {bearer} {OTHER_KEY} {EVENT_KEY}");
    let answers: Vec<(u16, &str)> =
        [401, 500, 400, 403].map(|status| (status, repeating.as_str())).repeat(8);
    let refusing = InngestApi::start(&answers).await;
    for origin in [accepting.origin(), refusing.origin(), nowhere()] {
        let builder = endpoint(&origin);
        writeln!(out, "{builder:?}").unwrap();
        let endpoint = builder.build().unwrap();
        writeln!(out, "{endpoint:?} {endpoint:#?}").unwrap();
        let server = Server::start(endpoint.clone()).await;
        out += &all_answers(&server).await;
        for talkative in [false, true] {
            out += &sent_in_process(&origin, talkative).await;
        }
        if let Err(error) = endpoint.sync().await {
            writeln!(out, "{error} {error:?} {:?}", std::error::Error::source(&error)).unwrap();
        }
    }

    // Keys that are none, and where keys do not belong.
    for key in [format!("{KEY}x"), KEY.replace("signkey-", "signkey ")] {
        let builder = Api::builder()
            .dev(false)
            .signing_key(&key)
            .signing_key_fallback(&key)
            .event_key(format!("{key}/"));
        let builder = builder.api_origin(format!("http://user:{key}@host")).env(format!("{key}\n"));
        writeln!(out, "{builder:?}").unwrap();
        let error = builder.build().unwrap_err();
        assert!(error.problems().len() >= 4, "{error}");
        writeln!(out, "{error} {error:?}").unwrap();
    }

    let logged = log.text();
    for part in ["TRACE", "call answered", "sync failed", "request refused", "handler failed"] {
        assert!(logged.contains(part), "the log is not what it should be: no {part:?}");
    }
    let sent = ["StepRun", "StepError", "has not taken the event", "no route to http://"];
    for part in ["[redacted]", "authentication_succeeded", "no signing key"].into_iter().chain(sent)
    {
        assert!(out.contains(part), "the answers are not what they should be: no {part:?}");
    }
    let secret = |key: &str| key.rsplit('-').next().unwrap().to_owned();
    for (what, secret) in [
        ("the signing key", secret(KEY)),
        ("the fallback key", secret(OTHER_KEY)),
        ("the bearer token", secret(&bearer)),
        ("the event key", EVENT_KEY.to_owned()),
    ] {
        for (place, text) in [("logged", &logged), ("answered or shown", &out)] {
            let found = text.lines().find(|line| line.contains(&secret));
            assert!(found.is_none(), "{what} was {place}: {found:?}");
        }
    }
}
