//! Dead letters as events.

use super::{DeadLetter, DeadLetters};
use crate::{__private::BoxFuture, api::Api, error::BoxError, step::Event};

/// Sends an event [`inngest-failure/handler.failed`](Self::EVENT) for each dead letter, so that other functions and
/// alerts can react.
///
/// Its data is the letter. Its id is made of the letter's key, so that Inngest, which drops a second event of one id for 24
/// hours, starts nothing twice.
///
/// A failure of a function that such an event had itself started is not sent, or it might start that function for ever: its
/// letter goes to the log.
///
/// # Examples
///
/// ```
/// use inngest_failure::{Api, Dispatcher, SendEvent, on_failure};
///
/// # #[on_failure(function = "checkout", app = "shop")]
/// # async fn refund() {}
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let api = Api::builder().dev(true).build()?;
/// let builder = Dispatcher::builder().dead_letters(SendEvent::new(api));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct SendEvent {
    api: Api,
}

impl SendEvent {
    /// The name of the events.
    pub const EVENT: &str = "inngest-failure/handler.failed";

    /// Sends events by this API, which needs an event key unless it is a dev server's.
    pub fn new(api: Api) -> Self {
        Self { api }
    }
}

impl DeadLetters for SendEvent {
    fn put<'a>(&'a self, letter: &'a DeadLetter) -> BoxFuture<'a, Result<(), BoxError>> {
        Box::pin(async move {
            if letter.event.trigger_name() == Some(Self::EVENT) {
                return Err(format!(
                    "the failed function was itself started by an event `{}`: no other one is sent for it",
                    Self::EVENT
                )
                .into());
            }
            let (handler_id, event_id) = letter.key();
            let event = Event::new(Self::EVENT, letter).id(format!("{handler_id}/{event_id}"));
            self.api.send_events(&[event]).await?;
            Ok(())
        })
    }
}
