//! Polling a handler that takes steps, until it returns or its pass has another end.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep};

use super::{
    pass::{Ended, Next, Pass},
    place::At,
};

/// How a pass ended.
#[derive(Debug)]
pub(crate) enum Driven<T> {
    Returned(T),
    /// The handler is of no more use: what is left of the pass says why.
    Stopped,
    /// Its time was over.
    TimedOut {
        in_step: bool,
    },
}

/// How long the step that a call asks for may take to turn up after the last one that did.
#[cfg(feature = "serve")]
const PATIENCE: Duration = Duration::from_secs(10);

/// Polls the handler. Once the pass has its end the handler is dropped, and not polled again.
pub(crate) async fn drive<F: Future + Unpin>(
    pass: &Arc<Pass>,
    handler: F,
    timeout: Option<Duration>,
) -> (Driven<F::Output>, Ended) {
    let mut handler = At { place: pass.place(), future: handler };
    // Dropped before the handler, whose destructors are not to begin steps.
    let over = Over(pass);
    let mut clock = Clock::new(timeout);
    #[cfg(feature = "serve")]
    let mut patience = Patience::default();
    let driven = poll_fn(|cx| {
        loop {
            if let Poll::Ready(output) = Pin::new(&mut handler).poll(cx) {
                return Poll::Ready(Driven::Returned(output));
            }
            match pass.advance() {
                Next::Poll => {}
                Next::Stop if pass.is_late() => {
                    return Poll::Ready(Driven::TimedOut { in_step: true });
                }
                Next::Stop => return Poll::Ready(Driven::Stopped),
                Next::Wait => break,
            }
        }
        if clock.is_over(pass.is_asleep(), cx) {
            #[cfg(feature = "serve")]
            if pass.target_is_missing().is_some() {
                pass.give_target_up();
                return Poll::Ready(Driven::Stopped);
            }
            return Poll::Ready(Driven::TimedOut { in_step: pass.time_out() });
        }
        #[cfg(feature = "serve")]
        if patience.is_over(pass, cx) {
            pass.give_target_up();
            return Poll::Ready(Driven::Stopped);
        }
        Poll::Pending
    })
    .await;
    let ended = over.0.end();
    (driven, ended)
}

/// Ends the pass when it is dropped.
struct Over<'a>(&'a Arc<Pass>);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A time-out that stands still while the handler sleeps.
pub(crate) struct Clock {
    left: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Clock {
    pub(crate) fn new(timeout: Option<Duration>) -> Self {
        Self { left: timeout, timer: None }
    }

    pub(crate) fn is_over(&mut self, is_asleep: bool, cx: &mut Context<'_>) -> bool {
        let Some(left) = &mut self.left else { return false };
        if is_asleep {
            if let Some(timer) = self.timer.take() {
                *left = timer.deadline().saturating_duration_since(Instant::now());
            }
            return false;
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(*left)));
        timer.as_mut().poll(cx).is_ready()
    }
}

/// The time that is left for the step that a call asks for.
#[cfg(feature = "serve")]
#[derive(Default)]
struct Patience {
    timer: Option<(u64, Pin<Box<Sleep>>)>,
}

#[cfg(feature = "serve")]
impl Patience {
    fn is_over(&mut self, pass: &Pass, cx: &mut Context<'_>) -> bool {
        let Some(met) = pass.target_is_missing() else {
            self.timer = None;
            return false;
        };
        if self.timer.as_ref().is_none_or(|(before, _)| *before != met) {
            self.timer = Some((met, Box::pin(sleep(PATIENCE))));
        }
        self.timer.as_mut().is_some_and(|(_, timer)| timer.as_mut().poll(cx).is_ready())
    }
}
