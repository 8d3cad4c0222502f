//! Undoing what a failed run had completed.

mod api;
mod hosts;
mod killed;
mod kit;
mod property;
#[path = "../sdk/server.rs"]
mod sdk_server;
mod traces;
mod wiring;

use inngest_failure::{Dispatcher, DispatcherBuilder, HandlerError};

type Outcome<T = ()> = Result<T, HandlerError>;

/// A builder without the handlers of the other tests.
fn builder() -> DispatcherBuilder {
    tests::listen();
    Dispatcher::builder().without_inventory().app("shop")
}

/// What undos did, in order.
#[derive(Clone, Default)]
struct Seen(std::sync::Arc<std::sync::Mutex<Vec<String>>>);

impl Seen {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}
