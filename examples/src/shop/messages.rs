//! Messages: to customers, and to the team.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use inngest_failure::{Failure, FailureEvent, HandlerError, State, Step, on_failure};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::store::{self, Order, Store};

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
///
/// Each mail is a step: one that has gone out is not sent again because a later one can't be.
#[on_failure(function = "send-*", retries = 4, timeout = "30s")]
async fn resend(
    failure: Failure<Order>,
    State(outbox): State<Outbox>,
    step: Step,
) -> Result<String, HandlerError> {
    let mut sent = 0;
    let all = failure.events.len();
    for event in failure.events.iter() {
        let event = event?;
        let order_id = event.data.order_id;
        let key = failure.idempotency_key(&format!("resend:{order_id}"));
        let text = format!("about your order {order_id}: {}", event.name);
        let customer = To::CustomerOf(order_id);
        let delivery = step.run("resend", || outbox.send(key, customer, text)).await?;
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

/// How it went: what a handler returns stands in the report, what a step returns is remembered.
#[derive(PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Delivery {
    Sent,
    AlreadySent,
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sent => "sent",
            Self::AlreadySent => "already sent",
        })
    }
}

/// Stands for the async client of a mail service; it keeps the messages in the books, and hangs up when it is called for
/// the second time.
#[derive(Clone)]
pub(crate) struct Outbox {
    store: Store,
    calls: Arc<AtomicU32>,
}

/// Whom to write to.
pub(super) enum To {
    CustomerOf(String),
    Team,
}

impl Outbox {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, calls: Arc::default() }
    }

    /// Sends one message per key.
    pub(super) async fn send(
        &self,
        key: String,
        to: To,
        text: String,
    ) -> Result<Delivery, HandlerError> {
        if self.calls.fetch_add(1, Ordering::Relaxed) == 1 {
            return Err("the mail service has hung up".into());
        }
        let send = move |db: &mut Connection| {
            let recipient = match to {
                To::CustomerOf(order_id) => store::customer_of(db, &order_id)?,
                To::Team => "team".to_owned(),
            };
            let sent = db.execute(
                "INSERT INTO outbox VALUES (?1, ?2, ?3) ON CONFLICT (key) DO NOTHING",
                [&key, &recipient, &text],
            )?;
            if sent == 0 {
                return Ok(Delivery::AlreadySent);
            }
            tracing::info!(key, "the mail service sends it");
            Ok(Delivery::Sent)
        };
        self.store.work(send).await
    }
}
