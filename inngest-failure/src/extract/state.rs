//! The application's own values as an argument.

use std::{any::type_name, error::Error, fmt};

use super::{Context, FromFailure, Needs};
use crate::error::NonRetriable;

/// A value of the application's own, such as a connection pool: a clone of what
/// [`.state(..)`](crate::DispatcherBuilder::state) was given, one per type.
///
/// # Examples
///
/// ```
/// use inngest_failure::{Dispatcher, HandlerError, State, handlers, on_failure};
///
/// #[derive(Clone)]
/// struct Shop { refunds_enabled: bool }
///
/// #[on_failure(function = "checkout")]
/// async fn refund(State(shop): State<Shop>) -> Result<(), HandlerError> {
///     assert!(shop.refunds_enabled);
///     Ok(())
/// }
///
/// let dispatcher = Dispatcher::builder()
///     .without_inventory()
///     .register(handlers![refund])
///     .state(Shop { refunds_enabled: true })
///     .build()?;
/// # Ok::<(), inngest_failure::BuildError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct State<S>(
    /// The value.
    pub S,
);

impl<S: Clone + Send + Sync + 'static> FromFailure for State<S> {
    type Rejection = MissingState;

    async fn from_failure(cx: &Context) -> Result<Self, MissingState> {
        cx.state::<S>().cloned().map(Self).ok_or_else(MissingState::new::<S>)
    }

    fn needs(needs: &mut Needs) {
        needs.state::<S>();
    }
}

/// The dispatcher was given no state of the type.
///
/// `build()` finds this out beforehand, for every extractor that declares its
/// [needs](FromFailure::needs). No retry mends it.
#[derive(Debug)]
pub struct MissingState {
    meaning: NonRetriable,
}

impl MissingState {
    fn new<S>() -> Self {
        let message = format!(
            "the dispatcher has no state of type `{0}`; give it one with `.state(..)`, and name it in the \
             extractor's `needs` so that `build()` finds it missing",
            type_name::<S>(),
        );
        Self { meaning: NonRetriable::new(message) }
    }
}

impl fmt::Display for MissingState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.meaning.fmt(f)
    }
}

impl Error for MissingState {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.meaning.source()
    }
}
