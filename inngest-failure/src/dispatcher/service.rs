//! The dispatcher as a `tower` service.

use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use tower_service::Service;

use super::{Dispatch, Dispatcher};
use crate::{__private::BoxFuture, event::FailureEvent};

/// Always ready, and never fails: what went wrong stands in the [`Dispatch`].
impl Service<FailureEvent> for Dispatcher {
    type Response = Dispatch;
    type Error = Infallible;
    type Future = DispatchFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, event: FailureEvent) -> DispatchFuture {
        let dispatcher = self.clone();
        DispatchFuture { dispatch: Box::pin(async move { dispatcher.dispatch(event).await }) }
    }
}

/// The future of a [`Dispatcher`] called as a service.
///
/// # Panics
///
/// As [`Dispatcher::dispatch`].
///
/// # Cancel safety
///
/// As [`Dispatcher::dispatch`].
#[must_use = "futures do nothing unless polled"]
pub struct DispatchFuture {
    dispatch: BoxFuture<'static, Dispatch>,
}

impl Future for DispatchFuture {
    type Output = Result<Dispatch, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.dispatch.as_mut().poll(cx).map(Ok)
    }
}

impl fmt::Debug for DispatchFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DispatchFuture").finish_non_exhaustive()
    }
}
