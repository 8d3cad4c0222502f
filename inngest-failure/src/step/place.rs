//! Where on this thread a step is used: in which pass, and in which other step.

use std::{
    cell::Cell,
    pin::Pin,
    task::{Context, Poll},
};

use super::pass::Ticket;

/// What is being polled on this thread.
#[derive(Clone, Copy, Default, PartialEq)]
pub(super) struct Place {
    /// The address of the handler's pass; none is 0.
    pub(super) pass: usize,
    /// The step whose closure it is.
    pub(super) step: Option<Ticket>,
}

thread_local! {
    static PLACE: Cell<Place> = const { Cell::new(Place { pass: 0, step: None }) };
}

impl Place {
    pub(super) fn current() -> Self {
        PLACE.get()
    }

    /// Runs something at this place.
    pub(super) fn enter<T>(self, run: impl FnOnce() -> T) -> T {
        struct Leave(Place);

        impl Drop for Leave {
            fn drop(&mut self) {
                PLACE.set(self.0);
            }
        }

        let _leave = Leave(PLACE.replace(self));
        run()
    }
}

/// A future that is polled at a place of its own.
pub(super) struct At<F> {
    pub(super) place: Place,
    pub(super) future: F,
}

impl<F: Future + Unpin> Future for At<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.place.enter(|| Pin::new(&mut self.future).poll(cx))
    }
}
