//! What a step does.

use std::time::{Duration, SystemTime};

use super::{Invoke, Wait};

/// What a step does.
#[cfg_attr(
    not(any(feature = "serve", feature = "sdk")),
    expect(dead_code, reason = "only an endpoint and an SDK tell Inngest")
)]
pub(crate) enum Op {
    Run,
    SendEvent,
    Sleep { until: Until },
    WaitForEvent(Wait),
    Invoke(Invoke),
}

/// How long a step sleeps.
#[derive(Clone, Copy)]
pub(crate) enum Until {
    After(Duration),
    At(SystemTime),
}
