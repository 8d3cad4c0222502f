//! Data of any event, for a server whose functions all take one type.

use std::{fmt, marker::PhantomData, sync::Arc};

use inngest::{
    client::Inngest,
    event::Event,
    function::{Input, ServableFn},
    result::{DevError, Error, NonRetryableError},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};
use serde_json::Value;
use sync_wrapper::SyncFuture;

use super::layer::{Answer, answer};
use crate::{error::ParseError, event::ErrorBody};

/// The data of an event: a `T`, or that of a failure.
///
/// One server of the SDK has one data type for all its functions. A server whose functions take one struct takes failure
/// events as well if that type is `EventData` of the struct, with each of its functions [adapted](adapt).
///
/// It keeps the JSON as it came, and reads it when it is [asked](Self::parse).
///
/// # Examples
///
/// ```
/// use inngest_failure::sdk::EventData;
///
/// #[derive(serde::Deserialize)]
/// struct Order {
///     order_id: String,
/// }
///
/// let data: EventData<Order> = serde_json::from_str(r#"{"order_id":"o1"}"#)?;
/// assert_eq!(data.parse()?.order_id, "o1");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct EventData<T> {
    json: Value,
    data: PhantomData<fn() -> T>,
}

impl<T> EventData<T> {
    /// The data as JSON.
    pub fn as_json(&self) -> &Value {
        &self.json
    }

    /// The data as `T`.
    ///
    /// # Errors
    ///
    /// [`ParseError`], with the JSON path, if it does not fit.
    pub fn parse(&self) -> Result<T, ParseError>
    where
        T: DeserializeOwned,
    {
        serde_path_to_error::deserialize(&self.json).map_err(|error| ParseError::data::<T>(&error))
    }
}

/// Takes any JSON.
impl<'de, T> Deserialize<'de> for EventData<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self { json: Value::deserialize(deserializer)?, data: PhantomData })
    }
}

/// Writes the JSON as it came.
impl<T> Serialize for EventData<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.json.serialize(serializer)
    }
}

impl<T> Clone for EventData<T> {
    fn clone(&self) -> Self {
        Self { json: self.json.clone(), data: PhantomData }
    }
}

/// Shows nothing of the data.
impl<T> fmt::Debug for EventData<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventData").finish_non_exhaustive()
    }
}

/// Makes a function that takes a `T` one of a server whose functions take [`EventData<T>`](EventData).
///
/// `client` is the one that the function was made with.
///
/// An event whose data does not fit `T` is an error that is not to be retried; without [`Layer`](super::Layer) the SDK
/// answers it with no more than `no retry error`, and it is tried again.
///
/// # Examples
///
/// ```
/// use inngest::{
///     client::Inngest,
///     function::{FunctionOpts, Input, ServableFn, Trigger},
///     handler::Handler,
///     result::Error,
/// };
/// use inngest_failure::{Dispatcher, sdk};
/// # use inngest_failure::{handlers, on_failure};
///
/// #[derive(Debug, serde::Serialize, serde::Deserialize)]
/// struct Order {
///     order_id: String,
/// }
///
/// fn checkout(client: &Inngest) -> ServableFn<Order, Error> {
///     client.create_function(
///         FunctionOpts::new("checkout"),
///         Trigger::event("shop/order.placed"),
///         |input: Input<Order>, _step| async move { Ok(input.event.data.order_id.into()) },
///     )
/// }
///
/// # #[on_failure(function = "checkout", app = "shop")]
/// # async fn undo_checkout() {}
/// # fn main() -> Result<(), inngest_failure::BuildError> {
/// # let dispatcher = Dispatcher::builder().without_inventory().register(handlers![undo_checkout]).build()?;
/// let client = Inngest::new("shop");
/// let mut handler: Handler<sdk::EventData<Order>, Error> = Handler::new(&client);
/// handler.register_fn(sdk::adapt(&client, checkout(&client)));
/// handler.register_fns(sdk::servable_fns(&dispatcher, &client));
/// # Ok(())
/// # }
/// ```
pub fn adapt<T, E>(client: &Inngest, function: ServableFn<T, E>) -> ServableFn<EventData<T>, E>
where
    T: DeserializeOwned + Send + 'static,
    E: From<Error> + 'static,
{
    let ServableFn { opts, trigger, func, .. } = function;
    let func = Arc::new(func);
    client.create_function(opts, trigger, move |input: Input<EventData<T>>, tool| {
        let func = Arc::clone(&func);
        SyncFuture::new(async move {
            match read(input) {
                Ok(input) => func(input, tool).await,
                Err(error) => Err(E::from(misfit(&error))),
            }
        })
    })
}

fn read<T: DeserializeOwned>(input: Input<EventData<T>>) -> Result<Input<T>, ParseError> {
    let Input { event, events, ctx } = input;
    let event = read_event(event)?;
    let events = events.into_iter().map(read_event).collect::<Result<_, _>>()?;
    Ok(Input { event, events, ctx })
}

fn read_event<T: DeserializeOwned>(event: Event<EventData<T>>) -> Result<Event<T>, ParseError> {
    let Event { id, name, data, timestamp, version } = event;
    Ok(Event { id, name, data: data.parse()?, timestamp, version })
}

fn misfit(error: &ParseError) -> Error {
    let message = error.to_string();
    tracing::error!(error = message, "the event's data does not fit the function, nothing has run");
    answer(Answer::error(&ErrorBody::new("ParseError", message.clone()), false, None));
    Error::Dev(DevError::NoRetry(NonRetryableError { message, cause: None }))
}
