//! Handlers as functions of a real server of the `inngest` crate, over real HTTP.

mod calls;
mod guard;
#[path = "../steps/program.rs"]
mod program;
mod property;
mod same;
mod server;
mod startup;
mod steps;
mod sync;

use inngest::{client::Inngest, handler::Handler, result::Error};
use inngest_failure::{
    Dispatcher, DispatcherBuilder, FailureEvent, HandlerError, sdk, testing::failure,
};
use serde_json::{Value, json};

use self::server::Server;

type Outcome<T = ()> = Result<T, HandlerError>;

/// A builder without the handlers of the other tests.
fn builder() -> DispatcherBuilder {
    tests::listen();
    Dispatcher::builder().without_inventory().app("shop")
}

fn client() -> Inngest {
    Inngest::new("shop")
}

/// The SDK's handler with these handlers as functions.
fn handler(dispatcher: &Dispatcher) -> Handler<Value, Error> {
    let client = client();
    let mut handler = Handler::new(&client);
    handler.register_fns(sdk::servable_fns(dispatcher, &client));
    handler
}

/// A server as it should be: behind the layer, in dev mode.
async fn serve(builder: DispatcherBuilder) -> Server {
    Server::start(handler(&builder.build().unwrap()), Some(open())).await
}

/// The layer in dev mode, which owes nothing to this machine's environment.
fn open() -> sdk::Layer {
    sdk::Layer::new(inngest_failure::Api::builder().dev(true).build().unwrap()).unwrap()
}

fn event() -> FailureEvent {
    failure("shop-checkout")
        .error(("CardError", "card declined"))
        .data(json!({ "order_id": "o1" }))
        .build()
}

/// What closures did, in order.
#[derive(Clone, Default)]
struct Seen(std::sync::Arc<std::sync::Mutex<Vec<String>>>);

impl Seen {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}
