//! How many runs of a handler a dispatcher lets start, at once and in a period.

use std::{fmt, num::NonZeroU32, sync::Arc, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{InMemoryState, NotKeyed},
};
use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use crate::{rate::Rate, registry::HandlerInfo};

/// A handler's own limits.
#[derive(Debug)]
pub(super) struct Limits {
    concurrency: Option<Arc<Semaphore>>,
    /// Whoever waits for its turn holds the lock, which others get in the order in which they came.
    throttle: Option<Mutex<Limiter>>,
    rate_limit: Option<Limiter>,
}

impl Limits {
    pub(super) fn new(handler: &HandlerInfo) -> Self {
        let semaphore = |limit| Semaphore::new((limit as usize).min(Semaphore::MAX_PERMITS));
        Self {
            concurrency: handler.concurrency.map(semaphore).map(Arc::new),
            throttle: handler.throttle.map(Limiter::new).map(Mutex::new),
            rate_limit: handler.rate_limit.map(Limiter::new),
        }
    }

    /// Waits until the throttle lets one more run start; false if the rate limit lets none.
    pub(super) async fn admit(&self) -> bool {
        if self.rate_limit.as_ref().is_some_and(|limiter| limiter.check().is_err()) {
            return false;
        }
        if let Some(throttle) = &self.throttle {
            // Boxed, for it is rare, and every run would be the larger for it.
            Box::pin(turn(throttle)).await;
        }
        true
    }

    /// Waits for a place among the calls.
    pub(super) async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        // A closed semaphore would mean no limit, but this one is never closed.
        Arc::clone(self.concurrency.as_ref()?).acquire_owned().await.ok()
    }
}

/// Waits for a turn, in the order in which they came.
async fn turn(throttle: &Mutex<Limiter>) {
    let limiter = throttle.lock().await;
    while let Err(wait) = limiter.check() {
        tracing::debug!(?wait, "throttled, waits for its turn");
        tokio::time::sleep(wait).await;
    }
}

/// The generic cell rate algorithm: so many at once, and then one every so often.
struct Limiter {
    limiter: RateLimiter<NotKeyed, InMemoryState, Timer, NoOpMiddleware<Nanos>>,
    timer: Timer,
}

impl Limiter {
    fn new(Rate { limit, period }: Rate) -> Self {
        let limit = NonZeroU32::new(limit).unwrap_or(NonZeroU32::MIN);
        // More than one in a nanosecond is no limit that could be kept.
        let every = (period / limit.get()).max(Duration::from_nanos(1));
        let quota =
            Quota::with_period(every).expect("a period that is not zero").allow_burst(limit);
        let timer = Timer(Instant::now());
        Self { limiter: RateLimiter::direct_with_clock(quota, timer.clone()), timer }
    }

    /// Takes one; or says after how long there is one.
    fn check(&self) -> Result<(), Duration> {
        self.limiter.check().map_err(|not_until| not_until.wait_time_from(self.timer.now()))
    }
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter").finish_non_exhaustive()
    }
}

/// Tokio's clock, by which it also sleeps, counted from some moment.
#[derive(Clone)]
struct Timer(Instant);

impl Clock for Timer {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.elapsed().into()
    }
}
