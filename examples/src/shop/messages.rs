//! Messages: to customers, and to the team.

use inngest_failure::{Failure, FailureEvent, HandlerError, State, on_failure};
use serde::Serialize;

use super::store::{self, Order, Store};

/// Tell the customer that the order did not go through.
#[on_failure(function = "checkout", id = "apologise")]
async fn apologise(
    failure: Failure<Order>,
    State(outbox): State<Outbox>,
) -> Result<Delivery, HandlerError> {
    let order_id = failure.event.data.order_id.clone();
    let text = format!("we are sorry: order {order_id} did not go through, and costs you nothing");
    outbox.send(failure.idempotency_key("apologise"), To::CustomerOf(order_id), text).await
}

/// Tell the customer that the parcel will be late.
#[on_failure(function = "fulfil-order", id = "announce-delay", timeout = "30s")]
async fn announce_delay(
    failure: Failure<Order>,
    State(outbox): State<Outbox>,
) -> Result<Delivery, HandlerError> {
    let order_id = failure.event.data.order_id.clone();
    let text = format!("your order {order_id} will be late: {}", failure.error);
    outbox.send(failure.idempotency_key("announce-delay"), To::CustomerOf(order_id), text).await
}

/// Send again what a function could not send; a batched one had been started by several events.
#[on_failure(function = "send-*")]
async fn resend(
    failure: Failure<Order>,
    State(outbox): State<Outbox>,
) -> Result<String, HandlerError> {
    let mut sent = 0;
    let all = failure.events.len();
    for event in failure.events.iter() {
        let event = event?;
        let order_id = event.data.order_id;
        let key = failure.idempotency_key(&format!("resend:{order_id}"));
        let text = format!("about your order {order_id}: {}", event.name);
        let delivery = outbox.send(key, To::CustomerOf(order_id), text).await?;
        sent += usize::from(delivery == Delivery::Sent);
    }
    Ok(format!("sent {sent} of {all}"))
}

/// Tell the team of a failure that nobody has written a handler for.
#[on_failure(fallback, cancelled)]
async fn alert(
    event: FailureEvent,
    State(outbox): State<Outbox>,
) -> Result<Delivery, HandlerError> {
    let text = format!("nothing handles `{}`: {}", event.function_id(), event.error());
    outbox.send(event.idempotency_key("alert"), To::Team, text).await
}

/// How it went: what a handler returns stands in the report.
#[derive(PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Delivery {
    Sent,
    AlreadySent,
}

/// Stands for the async client of a mail service; it keeps the messages in the books.
#[derive(Clone)]
pub(crate) struct Outbox {
    store: Store,
}

/// Whom to write to.
enum To {
    CustomerOf(String),
    Team,
}

impl Outbox {
    pub(crate) fn new(store: Store) -> Self {
        Self { store }
    }

    /// Sends one message per key.
    async fn send(&self, key: String, to: To, text: String) -> Result<Delivery, HandlerError> {
        let store = self.store.clone();
        let send = move || {
            let db = store.lock();
            let recipient = match to {
                To::CustomerOf(order_id) => store::customer_of(&db, &order_id)?,
                To::Team => "team".to_owned(),
            };
            let sent = db.execute(
                "INSERT INTO outbox VALUES (?1, ?2, ?3) ON CONFLICT (key) DO NOTHING",
                [key, recipient, text],
            )?;
            Ok(if sent == 1 { Delivery::Sent } else { Delivery::AlreadySent })
        };
        // SQLite blocks, which an `async fn` must not do.
        tokio::task::spawn_blocking(send).await?
    }
}
