//! Traces that were fetched, for all who want them.

use std::{fmt, sync::Arc};

use quick_cache::{Weighter, sync::Cache};

use super::{RunTrace, TraceError, TraceSource};
#[cfg(feature = "api")]
use crate::api::Api;
use crate::{dispatcher::shown, event::FailureEvent};

/// How much of traces is kept, in bytes: as much as the largest answer that is read.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// About how many that are. So few are kept in one shard, which then has room for a large one.
const SOME_TRACES: usize = 32;

/// Where traces come from, and those that came lately: each is fetched once, however many want it.
pub(crate) struct Traces {
    source: Option<Arc<dyn TraceSource>>,
    #[cfg(feature = "api")]
    api: Option<Api>,
    cache: Cache<String, RunTrace, Bytes>,
}

#[derive(Clone)]
struct Bytes;

impl Weighter<String, RunTrace> for Bytes {
    fn weight(&self, _: &String, trace: &RunTrace) -> u64 {
        // What weighs nothing would never go.
        (trace.inner.bytes + size_of_val(trace.steps())).max(1) as u64
    }
}

impl Traces {
    pub(crate) fn new(
        source: Option<Arc<dyn TraceSource>>,
        #[cfg(feature = "api")] api: Option<Api>,
    ) -> Self {
        Self {
            source,
            #[cfg(feature = "api")]
            api,
            cache: Cache::with_weighter(SOME_TRACES, MAX_BYTES, Bytes),
        }
    }

    /// The trace of the run that failed. `api` is that of whoever calls the handler, if it has one.
    pub(crate) async fn of(
        &self,
        event: &FailureEvent,
        #[cfg(feature = "api")] api: Option<&Api>,
    ) -> Result<RunTrace, TraceError> {
        #[cfg(feature = "testing")]
        if let Some(test) = event.test_trace()
            && (test.is_given || (self.source.is_none() && api.is_none() && self.api.is_none()))
        {
            return Ok(test.trace.clone());
        }
        let run_id = event.run_id();
        #[cfg(feature = "api")]
        let api = api.or(self.api.as_ref());
        let fetch = async {
            #[cfg(feature = "api")]
            let trace = match (&self.source, api) {
                (Some(source), _) => source.trace(run_id).await?,
                (None, Some(api)) => api.trace(run_id).await?,
                (None, None) => {
                    let api = Api::from_env().map_err(TraceError::other)?;
                    api.trace(run_id).await?
                }
            };
            #[cfg(not(feature = "api"))]
            let trace = match &self.source {
                Some(source) => source.trace(run_id).await?,
                None => return Err(no_source()),
            };
            if trace.run_id() != run_id {
                let message =
                    format!("the trace source gave that of run `{}`", shown(trace.run_id()));
                return Err(TraceError::other(message));
            }
            match trace.is_unfinished() {
                true => Err(TraceError::Unfinished { run_id: run_id.to_owned() }),
                false => Ok(trace),
            }
        };
        self.cache.get_or_insert_async(run_id, fetch).await
    }
}

#[cfg(not(feature = "api"))]
fn no_source() -> TraceError {
    TraceError::Unsupported {
        message: "there is nothing to have the trace from; give the dispatcher's builder a `.trace_source(..)`, or turn \
                  on the feature `api` of `inngest-failure`"
            .to_owned(),
    }
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traces").field("len", &self.cache.len()).finish_non_exhaustive()
    }
}
