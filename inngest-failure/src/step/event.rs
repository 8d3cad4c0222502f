//! An event that a handler sends.

use std::time::SystemTime;

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::Value;

/// An event to send: see [`Step::send_event`](super::Step::send_event).
///
/// # Examples
///
/// ```
/// use inngest_failure::Event;
/// use serde_json::json;
///
/// let event = Event::new("shop/refund.made", json!({ "cents": 1250 })).id("refund-o1");
/// ```
#[derive(Clone, Debug)]
#[must_use = "an event does nothing until it is sent"]
pub struct Event {
    name: String,
    pub(super) data: Result<Value, String>,
    id: Option<String>,
    ts: Option<u64>,
    user: Option<Value>,
    v: Option<String>,
}

impl Event {
    /// An event with this data, which is an object. Data that can't be written as JSON is an error when it is sent.
    pub fn new(name: impl Into<String>, data: impl Serialize) -> Self {
        let data = serde_json::to_value(data).map_err(|error| error.to_string());
        Self { name: name.into(), data, id: None, ts: None, user: None, v: None }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// An id, so that the event counts once: for 24 hours Inngest drops others of the same id.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// When it happened; by default, when Inngest gets it. A time before 1970 is taken as 1970.
    pub fn ts(mut self, time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.ts = Some(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// What is known of the user.
    pub fn user(mut self, user: Value) -> Self {
        self.user = Some(user);
        self
    }

    /// The version of its data.
    pub fn v(mut self, version: impl Into<String>) -> Self {
        self.v = Some(version.into());
        self
    }
}

/// As Inngest takes it.
impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let data = self.data.as_ref().map_err(|error| {
            let name = &self.name;
            serde::ser::Error::custom(format!("the data of event `{name}`: {error}"))
        })?;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", &self.name)?;
        map.serialize_entry("data", data)?;
        let mut entry = |key, value: Option<Value>| match value {
            Some(value) => map.serialize_entry(key, &value),
            None => Ok(()),
        };
        entry("id", self.id.clone().map(Value::from))?;
        entry("ts", self.ts.map(Value::from))?;
        entry("user", self.user.clone())?;
        entry("v", self.v.clone().map(Value::from))?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, time::Duration};

    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_has_only_what_it_was_given() {
        let event = Event::new("shop/undone", json!({ "n": 1 }));
        assert_eq!(
            serde_json::to_value(&event).unwrap(),
            json!({ "name": "shop/undone", "data": { "n": 1 } })
        );
        let event = event
            .id("e1")
            .ts(SystemTime::UNIX_EPOCH + Duration::from_millis(5))
            .user(json!({ "id": "u1" }))
            .v("2");
        assert_eq!(
            serde_json::to_value(&event).unwrap(),
            json!({
                "name": "shop/undone", "data": { "n": 1 }, "id": "e1", "ts": 5, "user": { "id": "u1" }, "v": "2"
            })
        );
    }

    #[test]
    fn data_that_is_no_json_says_of_which_event_it_is() {
        let event = Event::new("shop/undone", HashMap::from([((1, 2), 3)]));
        let error = serde_json::to_string(&event).unwrap_err();
        assert_eq!(error.to_string(), "the data of event `shop/undone`: key must be a string");
    }
}
