//! What a server remembers of one step.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::pass::Outcome;
use crate::event::ErrorBody;

/// What a step ended with. A sleep and an event that did not come are `null`; an event that came stands there as it is,
/// with a name beside its data.
pub(super) fn outcome(json: &str) -> Outcome {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Memo<'a> {
        #[serde(borrow)]
        data: Option<&'a RawValue>,
        #[serde(borrow)]
        error: Option<&'a RawValue>,
        #[serde(rename = "type")]
        _kind: Option<String>,
    }
    // A struct is also read from an array.
    let memo = Some(json).filter(|json| json.starts_with('{'));
    let memo: Option<Memo<'_>> = memo.and_then(|json| serde_json::from_str(json).ok());
    match memo {
        Some(Memo { error: Some(error), .. }) => Err(Box::new(ErrorBody::read(error.get()))),
        Some(Memo { data, .. }) => Ok(data.map_or("null", RawValue::get).to_owned()),
        None => Ok(json.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memo_is_data_an_error_or_anything_else_as_it_stands() {
        assert_eq!(outcome("null"), Ok("null".to_owned()));
        assert_eq!(outcome("{}"), Ok("null".to_owned()));
        assert_eq!(outcome(r#"{"data":null}"#), Ok("null".to_owned()));
        assert_eq!(outcome(r#"{"type":"data","data":{"data":1}}"#), Ok(r#"{"data":1}"#.to_owned()));
        assert_eq!(outcome("[1]"), Ok("[1]".to_owned()));
        let event = r#"{"name":"shop/approved","data":{"by":"ann"}}"#;
        assert_eq!(outcome(event), Ok(event.to_owned()));
        let error =
            outcome(r#"{"error":{"name":"CardError","message":"declined","stack":"at x"}}"#);
        let error = error.unwrap_err();
        assert_eq!((error.name.as_str(), error.message.as_str()), ("CardError", "declined"));
        assert_eq!(error.stack.as_deref(), Some("at x"));
        assert_eq!(outcome(r#"{"error":"broken"}"#).unwrap_err().message, "broken");
    }
}
