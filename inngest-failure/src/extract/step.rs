//! Steps as an argument.

use super::{Context, FromFailure, Needs};
use crate::{error::NonRetriable, step::Step};

impl FromFailure for Step {
    type Rejection = NonRetriable;

    async fn from_failure(cx: &Context) -> Result<Self, NonRetriable> {
        cx.step().ok_or_else(|| {
            NonRetriable::new(
                "the handler was called without steps; the extractor that takes a `Step` is to say so in its `needs`, \
                 with `needs.steps()`, or to call `Step::needs`",
            )
        })
    }

    fn needs(needs: &mut Needs) {
        needs.steps();
    }
}
