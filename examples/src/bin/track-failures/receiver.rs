//! Stands for Datadog and Slack where neither is set up: a server on this machine that takes what they take.

use std::{
    io, mem,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use examples::tidy;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::post::Url;

/// A server that runs as long as the program.
pub(crate) struct Receiver {
    address: SocketAddr,
    received: Received,
}

/// What was received and is not yet shown.
type Received = Arc<Mutex<Vec<String>>>;

impl Receiver {
    /// Listens on a port that is free, for nobody but this machine.
    pub(crate) async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let received = Received::default();
        let app = Router::new()
            .route("/api/v1/events", post(datadog))
            .route("/services/example", post(slack))
            .with_state(Arc::clone(&received));
        tokio::spawn(async { axum::serve(listener, app).await });
        Ok(Self { address, received })
    }

    pub(crate) fn url(&self, path: &str) -> Result<Url, String> {
        Url::new("receiver", &format!("http://{}{path}", self.address))
    }

    /// What was received since this was last asked for, as one would read it.
    pub(crate) fn received(&self) -> String {
        let mut received =
            mem::take(&mut *self.received.lock().unwrap_or_else(PoisonError::into_inner));
        // The two are told at the same time: in which order they hear of it is chance.
        received.sort();
        received.concat()
    }
}

/// Answers as Datadog does, which wants a key.
async fn datadog(
    State(received): State<Received>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, &'static str) {
    if !headers.contains_key("dd-api-key") {
        return (StatusCode::FORBIDDEN, r#"{"status":"error","errors":["Forbidden"]}"#);
    }
    match note(&received, "Datadog, POST /api/v1/events", &body) {
        true => (StatusCode::ACCEPTED, r#"{"status":"ok"}"#),
        false => (
            StatusCode::BAD_REQUEST,
            r#"{"status":"error","errors":["Payload is not in the expected format"]}"#,
        ),
    }
}

/// Answers as Slack does.
async fn slack(State(received): State<Received>, body: Bytes) -> (StatusCode, &'static str) {
    match note(&received, "Slack, POST the webhook", &body) {
        true => (StatusCode::OK, "ok"),
        false => (StatusCode::BAD_REQUEST, "invalid_payload"),
    }
}

/// Notes what came, if it is JSON.
fn note(received: &Received, by: &str, body: &[u8]) -> bool {
    let Ok(body) = serde_json::from_slice(body) else { return false };
    let mut shown = format!("  received by {by}\n");
    show(&body, "", 4, &mut shown);
    received.lock().unwrap_or_else(PoisonError::into_inner).push(shown);
    true
}

/// Writes JSON line by line, each with the path to it, and texts as they are.
fn show(value: &Value, path: &str, indent: usize, shown: &mut String) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let dot = if path.is_empty() { "" } else { "." };
                show(value, &format!("{path}{dot}{name}"), indent, shown);
            }
        }
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                show(item, &format!("{path}[{i}]"), indent, shown);
            }
        }
        Value::String(text) if text.contains('\n') => {
            *shown += &format!("{:indent$}{path}:\n", "");
            for line in text.lines() {
                // Not `tidy`, which would take its indentation.
                let line = format!("{:indent$}  | {}", "", line.replace(char::is_control, " "));
                *shown += line.trim_end();
                *shown += "\n";
            }
        }
        Value::String(text) => *shown += &format!("{:indent$}{path}: {}\n", "", tidy(text, 4_000)),
        value => *shown += &format!("{:indent$}{path}: {value}\n", ""),
    }
}
