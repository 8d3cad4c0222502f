//! What the closure of a step may return.

use serde::{Serialize, de::DeserializeOwned};
use serde_path_to_error::Track;

use crate::error::{HandlerError, ParseError, StepError};

/// A value that a step may return: it is kept as JSON, and read back.
///
/// It is implemented for all that is `Serialize`, `DeserializeOwned` and `Send`: for values that own what they hold,
/// `String` and not `&str`.
#[diagnostic::on_unimplemented(
    message = "a step can't return `{Self}`, which is not `serde::Serialize`, `serde::Deserialize` and `Send`",
    label = "the value is kept as JSON, and can't be written and read back",
    note = "derive `serde::Serialize` and `serde::Deserialize` for `{Self}`, or let the step return `Result<(), _>`"
)]
pub trait StepValue: Send + Sized {
    #[doc(hidden)]
    fn to_json(&self) -> serde_json::Result<String>;

    #[doc(hidden)]
    fn from_json(step_id: &str, json: &str) -> Result<Self, StepError>;
}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned + Send> StepValue for T {
    fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    fn from_json(step_id: &str, json: &str) -> Result<Self, StepError> {
        read(step_id, json)
    }
}

/// Reads what is remembered of a step.
pub(super) fn read<T: DeserializeOwned>(id: &str, json: &str) -> Result<T, StepError> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let value = serde_path_to_error::deserialize(&mut deserializer).and_then(|value| {
        // Of a number that has become too large, an integer would be only the beginning.
        let end = deserializer.end();
        end.map_err(|error| serde_path_to_error::Error::new(Track::new().path(), error))?;
        Ok(value)
    });
    value.map_err(|error| StepError::misuse(id, ParseError::step::<T>(id, &error).to_string()))
}

/// An error that a step may fail with.
///
/// It is implemented for all that turns into [`HandlerError`] and is `Send`, as text does and every
/// `std::error::Error` that is `Send + Sync + 'static`, boxed or not.
#[diagnostic::on_unimplemented(
    message = "a step can't fail with `{Self}`, which does not turn into `HandlerError`",
    label = "the error does not turn into `HandlerError`",
    note = "`HandlerError` takes text and every `std::error::Error` that is `Send + Sync + 'static`, boxed or not",
    note = "implement `std::error::Error` for `{Self}`, or let the step return `Result<_, HandlerError>`; a `Box<dyn Error>` must be a `Box<dyn Error + Send + Sync>`"
)]
pub trait StepFailure: Send {
    #[doc(hidden)]
    fn into_handler_error(self) -> HandlerError;
}

#[diagnostic::do_not_recommend]
impl<E: Into<HandlerError> + Send> StepFailure for E {
    fn into_handler_error(self) -> HandlerError {
        self.into()
    }
}
