//! JSON that is not what it should be.

use std::{any::type_name, error::Error, fmt, str::Utf8Error};

use super::handler::Meaning;
use crate::event::{CANCELLED, FAILED};

/// JSON that is not a failure event, or whose data does not fit the type that it was asked for.
///
/// A handler that fails with one is not tried again: the same bytes will not fit the next time.
///
/// # Examples
///
/// ```
/// #[derive(Debug, serde::Deserialize)]
/// struct Order { amount_cents: u64 }
///
/// # let event: inngest_failure::FailureEvent = r#"{"name":"inngest/function.failed","data":{
/// #   "function_id":"shop-checkout","run_id":"r1","event":{"data":{"amount_cents":"12"}}}}"#.parse()?;
/// let error = event.parse::<Order>().unwrap_err();
/// assert_eq!(error.path(), "data.event.data.amount_cents");
/// assert!(error.expected().ends_with("::Order"));
/// assert!(error.to_string().contains("expected u64"));
/// # Ok::<(), inngest_failure::ParseError>(())
/// ```
pub struct ParseError {
    // Boxed, for it is rare, and the way of every result that has one is the longer for its size.
    inner: Box<Inner>,
}

struct Inner {
    path: String,
    expected: String,
    message: String,
    meaning: Meaning,
}

impl ParseError {
    /// Where in the JSON the fault is, such as `data.event.data.amount_cents`; empty for the JSON as
    /// a whole.
    pub fn path(&self) -> &str {
        &self.inner.path
    }

    /// What was expected as a whole: the Rust type of the data, or a description.
    pub fn expected(&self) -> &str {
        &self.inner.expected
    }

    fn new(path: impl Into<String>, expected: impl Into<String>, message: String) -> Self {
        let meaning = Meaning::non_retriable(message.as_str().into());
        let inner = Inner { path: path.into(), expected: expected.into(), message, meaning };
        Self { inner: Box::new(inner) }
    }

    /// The original event's data, of the event at `path`, is not a `T`.
    pub(crate) fn payload<T>(
        error: &serde_path_to_error::Error<serde_json::Error>,
        path: &str,
    ) -> Self {
        let path = join(path, error.path());
        let expected = type_name::<T>();
        let message = format!(
            "the original event's data does not fit `{expected}`: at `{path}`: {}; let the type take \
             what the event holds",
            fault(error.inner()),
        );
        Self::new(path, expected, message)
    }

    /// The data of an event that is no failure's is not a `T`.
    #[cfg(feature = "sdk")]
    pub(crate) fn data<T>(error: &serde_path_to_error::Error<serde_json::Error>) -> Self {
        let path = join("data", error.path());
        let expected = type_name::<T>();
        let message = format!(
            "the event's data does not fit `{expected}`: at `{path}`: {}; let the type take what the event holds",
            fault(error.inner()),
        );
        Self::new(path, expected, message)
    }

    /// What is remembered of a step is not a `T`.
    pub(crate) fn step<T>(id: &str, error: &serde_path_to_error::Error<serde_json::Error>) -> Self {
        let path = join("", error.path());
        let expected = type_name::<T>();
        let place = if path.is_empty() { String::new() } else { format!("at `{path}`: ") };
        let message = format!(
            "what step `{id}` has returned does not fit `{expected}`: {place}{}; let the type take what it writes, and \
             what it wrote before it was changed",
            fault(error.inner()),
        );
        Self::new(path, expected, message)
    }

    /// What a step of the failed run had returned is not a `T`.
    pub(crate) fn output<T>(
        step: &str,
        error: &serde_path_to_error::Error<serde_json::Error>,
    ) -> Self {
        let path = join("", error.path());
        let expected = type_name::<T>();
        let place = if path.is_empty() { String::new() } else { format!("at `{path}`: ") };
        let message = format!(
            "what step `{step}` of the failed run had returned does not fit `{expected}`: {place}{}; let the type take what \
             the step returns",
            fault(error.inner()),
        );
        Self::new(path, expected, message)
    }

    /// The handler undoes no step.
    pub(crate) fn no_output<T>() -> Self {
        let message = "there is no step's output: the handler undoes no step; write `step = \"..\"` in its attribute".to_owned();
        Self::new("", type_name::<T>(), message)
    }

    /// The answer of the API is no trace.
    pub(crate) fn trace(error: &serde_path_to_error::Error<serde_json::Error>) -> Self {
        Self::misshapen(error, "a run's trace")
    }

    /// The answer of the API is no list of runs.
    #[cfg(feature = "cli")]
    pub(crate) fn runs(error: &serde_path_to_error::Error<serde_json::Error>) -> Self {
        Self::misshapen(error, "a list of runs")
    }

    /// The SDK's fields of the error are not a `D`.
    pub(crate) fn details<D>(error: &serde_path_to_error::Error<serde_json::Error>) -> Self {
        let path = join("", error.path());
        let expected = type_name::<D>();
        let message = format!(
            "the error's details do not fit `{expected}`: {}; make fields that an error may lack \
             optional",
            fault(error.inner()),
        );
        Self::new(path, expected, message)
    }

    pub(crate) fn no_details<D>() -> Self {
        let message = "the failure event holds no error to take details from".to_owned();
        Self::new("", type_name::<D>(), message)
    }

    /// The envelope is not one of a failure event.
    pub(crate) fn envelope(error: &serde_path_to_error::Error<serde_json::Error>) -> Self {
        Self::misshapen(error, "a failure event")
    }

    /// The body of a call is not one.
    #[cfg(feature = "serve")]
    pub(crate) fn call(error: &serde_path_to_error::Error<serde_json::Error>) -> Self {
        Self::misshapen(error, "a call of Inngest")
    }

    /// The steps of a call are none.
    #[cfg(feature = "serve")]
    pub(crate) fn steps(error: &serde_json::Error) -> Self {
        let message = format!("not a call of Inngest: at `steps`: {}", fault(error));
        Self::new("steps", "an object of memoised steps", message)
    }

    fn misshapen(error: &serde_path_to_error::Error<serde_json::Error>, expected: &str) -> Self {
        if error.inner().is_data() {
            let path = join("", error.path());
            let place = if path.is_empty() { String::new() } else { format!("at `{path}`: ") };
            let message = format!("not {expected}: {place}{}", fault(error.inner()));
            return Self::new(path, expected, message);
        }
        Self::not_json(error.inner())
    }

    pub(crate) fn not_json(error: &serde_json::Error) -> Self {
        Self::new("", "JSON", format!("not JSON: {error}"))
    }

    pub(crate) fn not_utf8(error: &Utf8Error) -> Self {
        Self::new("", "JSON in UTF-8", format!("not JSON: {error}"))
    }

    pub(crate) fn too_large(bytes: usize, max: usize) -> Self {
        let message = format!(
            "the event is {bytes} bytes large, more than the {max} that Inngest allows a whole call"
        );
        Self::new("", format!("at most {max} bytes"), message)
    }

    pub(crate) fn not_a_failure(name: &str) -> Self {
        let name: String = name.chars().take(100).collect();
        let message = format!(
            "not a failure event: `name` is {name:?}; send only `{FAILED}` and `{CANCELLED}` here"
        );
        Self::new("name", format!("`{FAILED}` or `{CANCELLED}`"), message)
    }

    pub(crate) fn no_function_id() -> Self {
        let message = "not a failure event: `data.function_id` is empty".to_owned();
        Self::new("data.function_id", "the composite id of the failed function", message)
    }

    pub(crate) fn array() -> Self {
        let message = "not a failure event but an array; dispatch its events one by one".to_owned();
        Self::new("", "a failure event", message)
    }

    pub(crate) fn no_run_id() -> Self {
        let message = "not a failure event: neither `data.run_id` nor `id` is there".to_owned();
        Self::new("data.run_id", "the id of the failed run", message)
    }

    pub(crate) fn no_such_event(index: usize, len: usize) -> Self {
        let message = format!("there is no event {index}: the run was started by {len}");
        Self::new(format!("data.events[{index}]"), "an event", message)
    }
}

/// `base` and the path below it, which is `.` for the base itself.
fn join(base: &str, path: &serde_path_to_error::Path) -> String {
    let path = path.to_string();
    match path.as_str() {
        "." => base.to_owned(),
        _ if base.is_empty() || path.starts_with('[') => format!("{base}{path}"),
        _ => format!("{base}.{path}"),
    }
}

/// What is wrong, without the value that is wrong, which may be a secret, and without line and column,
/// which count from the start of a fragment.
fn fault(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    let message = message.strip_suffix(&position).unwrap_or(&message);
    for kind in ["invalid type: ", "invalid value: ", "unknown variant"] {
        let Some(rest) = message.strip_prefix(kind) else { continue };
        // The value may hold anything, also this separator; what was expected comes from a type.
        let Some((value, expected)) = rest.rsplit_once(", expected ") else { continue };
        let kind_of_value = value.split(['"', '`']).next().unwrap_or_default().trim_end();
        return format!("{kind}{kind_of_value}, expected {expected}");
    }
    message.to_owned()
}

impl fmt::Debug for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParseError")
            .field("path", &self.inner.path)
            .field("expected", &self.inner.expected)
            .field("message", &self.inner.message)
            .finish()
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)
    }
}

impl Error for ParseError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.inner.meaning)
    }
}
