//! A small web shop that makes good what its Inngest functions could not finish: it gives money back,
//! puts stock back on the shelf, writes to the customer, and tells the team of whatever is left.
//!
//! Each part of the shop keeps its handlers beside its own code: `checkout`, `stock`, `messages` and
//! `counts`. Nothing lists them: `#[on_failure(..)]` registers each, and `Dispatcher::build` finds and
//! checks them all. They are in a library, so they are there in those programs that name it: a crate
//! that nothing names is not linked.

mod checkout;
mod counts;
mod messages;
mod payments;
mod stock;
mod store;

use std::time::Duration;

use inngest_failure::{Backoff, Dispatcher, DispatcherBuilder};

pub use self::{
    counts::COUNT,
    store::{Store, Totals},
};
use self::{messages::Outbox, payments::Provider};

/// The one place that knows what the shop is made of.
///
/// What failed runs had done comes from Inngest's API, unless the program gives it a `trace_source`.
pub fn dispatcher(store: &Store) -> DispatcherBuilder {
    Dispatcher::builder()
        .app("shop")
        .state(store.clone())
        .state(Provider::from_env())
        .state(Outbox::new(store.clone()))
        // A handler for a function that does not exist would never run: `build` says so.
        .known_functions([
            "shop-checkout",
            "shop-fulfil-order",
            "shop-nightly-report",
            "shop-send-receipt",
            "shop-send-surveys",
            "depot-pick-parcel",
        ])
        .backoff(Backoff::new().first(Duration::from_millis(100)))
}
