//! How long to wait before the next attempt.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

/// How long a dispatcher waits before it tries a handler again: exponentially longer, with jitter.
///
/// By default the first wait is 500 milliseconds, each further one twice as long as the one before,
/// up to a minute, and up to as much again is added at random so that handlers that failed together do
/// not come back together. An error's own
/// [`retry_after`](crate::HandlerError::retry_after) takes the place of the wait.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use inngest_failure::{Backoff, Dispatcher};
///
/// let builder = Dispatcher::builder()
///     .backoff(Backoff::new().first(Duration::from_millis(50)).max(Duration::from_secs(5)));
/// ```
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    factor: f32,
}

impl Backoff {
    /// The default.
    pub fn new() -> Self {
        Self { first: Duration::from_millis(500), max: Duration::from_secs(60), factor: 2.0 }
    }

    /// How long to wait before the second attempt.
    #[must_use]
    pub fn first(mut self, wait: Duration) -> Self {
        self.first = wait;
        self
    }

    /// How long to wait at most, before jitter is added.
    #[must_use]
    pub fn max(mut self, wait: Duration) -> Self {
        self.max = wait;
        self
    }

    /// By how much each wait is longer than the one before; a factor below 1 is taken as 1.
    #[must_use]
    pub fn factor(mut self, factor: f32) -> Self {
        self.factor = factor.max(1.0);
        self
    }

    /// How long to wait after so many failures, one at least.
    pub(super) fn wait(&self, failures: u32) -> Duration {
        self.waits().nth(failures.saturating_sub(1) as usize).unwrap_or(self.max)
    }

    /// The waits after the first failure, the second, and so on.
    fn waits(&self) -> impl Iterator<Item = Duration> + Send + use<> {
        ExponentialBuilder::new()
            .with_min_delay(self.first.min(self.max))
            .with_max_delay(self.max)
            .with_factor(self.factor)
            .without_max_times()
            .with_jitter()
            .build()
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_maximum_holds_for_the_first_wait_too() {
        let backoff = Backoff::new().first(Duration::from_secs(9)).max(Duration::from_secs(1));
        assert!(backoff.waits().take(3).all(|wait| wait <= Duration::from_secs(2)));
    }

    #[test]
    fn waits_grow_up_to_the_maximum_with_jitter_on_top() {
        let backoff = Backoff::new().first(Duration::from_secs(1)).max(Duration::from_secs(4));
        let waits: Vec<f64> = backoff.waits().take(6).map(|wait| wait.as_secs_f64()).collect();
        for (wait, base) in waits.iter().zip([1.0, 2.0, 4.0, 4.0, 4.0, 4.0]) {
            assert!((base..=2.0 * base).contains(wait), "{waits:?}");
        }
        assert!(waits.iter().any(|wait| wait.fract() != 0.0), "no jitter: {waits:?}");
    }
}
