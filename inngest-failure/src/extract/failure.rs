//! The failure itself as an argument.

use std::convert::Infallible;

use serde::de::DeserializeOwned;

use super::{Context, FromFailure};
use crate::{
    error::ParseError,
    event::{Failure, FailureEvent},
};

impl<T: DeserializeOwned + Send> FromFailure for Failure<T> {
    type Rejection = ParseError;

    async fn from_failure(cx: &Context) -> Result<Self, ParseError> {
        cx.event().parse()
    }
}

impl FromFailure for FailureEvent {
    type Rejection = Infallible;

    async fn from_failure(cx: &Context) -> Result<Self, Infallible> {
        Ok(cx.event().clone())
    }
}
