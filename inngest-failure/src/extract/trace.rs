//! The failed run's trace as an argument.

use super::{Context, FromFailure, Needs};
use crate::{
    error::HandlerError,
    trace::{RunTrace, TraceError},
};

impl FromFailure for RunTrace {
    type Rejection = HandlerError;

    async fn from_failure(cx: &Context) -> Result<Self, HandlerError> {
        cx.trace().await.map_err(TraceError::into_handler_error)
    }

    fn needs(needs: &mut Needs) {
        needs.trace();
    }
}
