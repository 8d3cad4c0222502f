//! Failures as events of Datadog.

use std::sync::Arc;

use axum::http::HeaderValue;
use examples::tidy;
use inngest_failure::{
    Dashboard, FailureEvent, FailureKind, HandlerError, ResultExt, State, on_failure,
};
use serde_json::{Value, json};

use crate::post::{Client, Secret, Url};

/// Enters every failed or cancelled run into Datadog's events, where it stands beside all else that went on.
///
/// Datadog is not told of more than ten in a minute: after those, one more each six seconds.
#[on_failure(
    function = "*",
    cancelled,
    id = "to-datadog",
    rate_limit = "10/1m",
    retries = 3,
    timeout = "10s"
)]
pub(crate) async fn to_datadog(
    failure: FailureEvent,
    State(datadog): State<Datadog>,
    State(dashboard): State<Dashboard>,
) -> Result<String, HandlerError> {
    datadog.post(&event(&failure, &dashboard)).await
}

/// Where Datadog takes events.
#[derive(Clone)]
pub(crate) struct Datadog {
    client: Client,
    url: Url,
    key: Arc<Secret>,
}

impl Datadog {
    pub(crate) fn new(client: Client, origin: Url, key: Secret) -> Self {
        Self { client, url: origin.join("/api/v1/events"), key: Arc::new(key) }
    }

    async fn post(&self, event: &Value) -> Result<String, HandlerError> {
        // Its error would not say what is wrong, nor may it say what the key is.
        let mut key = HeaderValue::from_str(self.key.reveal())
            .map_err(|_| "`DD_API_KEY` can't be sent in a header; copy it once more from Datadog")
            .non_retriable()?;
        key.set_sensitive(true);
        self.client.post("Datadog", &self.url, &[("dd-api-key", key)], event).await
    }
}

/// What `POST /api/v1/events` takes. The limits are those of Datadog's documentation: 100 characters of a title and of an
/// aggregation key, 4,000 of a text, 200 of a tag.
fn event(failure: &FailureEvent, dashboard: &Dashboard) -> Value {
    let error = failure.error();
    let title = match failure.kind() {
        FailureKind::Cancelled => format!("{} was cancelled", failure.function_id()),
        _ => format!("{} failed: {}", failure.function_id(), error.message),
    };
    // The report is at most half of it.
    let url: String = failure.run_url(dashboard).chars().take(1_900).collect();
    let tag = |key: &str, value: &str| tidy(&format!("{key}:{value}"), 200);
    json!({
        "title": tidy(&title, 100),
        "text": format!("{}\n\n{url}", error.report()),
        "alert_type": if failure.kind() == FailureKind::Failed { "error" } else { "warning" },
        // Failures of one function are one entry in the list, which counts them.
        "aggregation_key": tidy(failure.function_id(), 100),
        "source_type_name": "inngest",
        "tags": [
            tag("inngest_function", failure.function_id()),
            tag("error", &error.name),
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_event_is_larger_than_datadog_takes() {
        let long = "ż ".repeat(10_000);
        let error = json!({ "name": long, "message": long, "stack": "ą ".repeat(10_000) });
        let data = json!({ "function_id": long, "run_id": long, "error": error });
        let event = json!({ "name": "inngest/function.failed", "data": data });
        let failure = FailureEvent::try_from(event).unwrap();
        let event = super::event(&failure, &Dashboard::dev());
        let chars = |value: &Value| value.as_str().unwrap().chars().count();
        assert!(chars(&event["title"]) <= 100);
        assert!(chars(&event["aggregation_key"]) <= 100);
        assert!((3_000..=4_000).contains(&chars(&event["text"])));
        assert!(event["tags"].as_array().unwrap().iter().all(|tag| chars(tag) <= 200));
    }
}
