//! Panics of handlers, caught with their message and place.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    panic::{self, AssertUnwindSafe},
    pin::Pin,
    sync::Once,
    task::{Context, Poll},
};

use crate::{__private::BoxFuture, event::FailureError};

thread_local! {
    /// Whether a handler is running on this thread.
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    /// Where the last panic of a handler was.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// A panic that was caught.
#[derive(Debug)]
pub(crate) struct Panic {
    pub(crate) message: String,
    pub(crate) location: String,
}

impl Panic {
    /// The panic as Inngest has an error.
    pub(crate) fn describe(self) -> FailureError {
        let mut error = FailureError::own("Panic", self.message);
        error.stack = Some(format!("panicked at {}", self.location));
        error
    }
}

/// Makes the place of a panic known, which only the panic hook is told. The hook that was there
/// before is called as before.
pub(crate) fn install_hook() {
    static INSTALLED: Once = Once::new();
    if std::thread::panicking() {
        return; // the hook can't be changed now
    }
    INSTALLED.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if CATCHING.try_with(Cell::get).unwrap_or(false) {
                let place = info.location().map(ToString::to_string);
                let _ = PLACE.try_with(|last| *last.borrow_mut() = place);
            }
            before(info);
        }));
    });
}

/// Runs a handler's code on this thread and catches its panic.
///
/// What it leaves behind is dropped by the caller and never looked at again, so it may be
/// inconsistent; state shared between handlers is guarded by its own means (a poisoned lock).
pub(crate) fn catch<T>(run: impl FnOnce() -> T) -> Result<T, Panic> {
    let outer = CATCHING.replace(true);
    PLACE.take();
    let result = panic::catch_unwind(AssertUnwindSafe(run));
    CATCHING.set(outer);
    result.map_err(|payload| {
        let location = PLACE.take().unwrap_or_else(|| "an unknown place".to_owned());
        let message = message(payload.as_ref());
        // What was panicked with may panic in its turn when it is dropped.
        let dropped = panic::catch_unwind(AssertUnwindSafe(|| drop(payload)));
        dropped.unwrap_or_else(std::mem::forget);
        Panic { message, location }
    })
}

/// Drops a value of the user's, whose destructor may panic like everything of the user's.
pub(crate) fn drop_caught(value: impl Sized) {
    if let Err(Panic { message, location }) = catch(|| drop(value)) {
        tracing::error!(message, location, "a handler's destructor panicked");
    }
}

fn message(payload: &(dyn Any + Send)) -> String {
    if let Some(message) = payload.downcast_ref::<&str>() {
        (*message).to_owned()
    } else if let Some(message) = payload.downcast_ref::<String>() {
        message.clone()
    } else {
        "a panic whose payload is not a text".to_owned()
    }
}

/// A handler's future, its panics caught, also those of its destructors.
pub(crate) struct Caught<'a, T> {
    /// Gone once it is ready or has panicked.
    future: Option<BoxFuture<'a, T>>,
}

impl<'a, T> Caught<'a, T> {
    pub(crate) fn new(future: BoxFuture<'a, T>) -> Self {
        Self { future: Some(future) }
    }

    fn drop_future(&mut self) {
        if let Some(future) = self.future.take() {
            drop_caught(future);
        }
    }
}

impl<T> Future for Caught<'_, T> {
    type Output = Result<T, Panic>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let future = self.future.as_mut().expect("a future is not polled after it was ready");
        let result = match catch(|| future.as_mut().poll(cx)) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(value)) => Ok(value),
            Err(panic) => Err(panic),
        };
        self.drop_future();
        Poll::Ready(result)
    }
}

impl<T> Drop for Caught<'_, T> {
    fn drop(&mut self) {
        self.drop_future();
    }
}
