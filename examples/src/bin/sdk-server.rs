//! Functions of the `inngest` crate, Inngest's Rust SDK, and their failure handlers, in one server on axum 0.6.
//!
//! In one terminal the app, in another Inngest's dev server, which finds it and calls it, in a third an order whose
//! checkout fails:
//!
//! ```text
//! INNGEST_DEV=1 cargo run -p examples --features sdk --bin sdk-server
//! npx inngest-cli@latest dev -u http://localhost:3000/api/inngest
//! curl http://localhost:8288/e/test -d '{"name":"shop/order.placed","data":{"order_id":"o-1","cents":4990,
//!   "units":3,"country":"MQ","email":"ada@example.com"}}'
//! ```

use std::{
    collections::{HashMap, HashSet},
    error::Error,
    fmt, io,
    net::{Ipv4Addr, TcpListener},
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{Router, extract::DefaultBodyLimit, routing::get};
use axum_06 as axum;
use clap::Parser;
use inngest::{
    client::Inngest,
    function::{FunctionOpts, Input, ServableFn, Trigger},
    handler::Handler,
    result::{DevError, Error as SdkError, NonRetryableError, RetryAfterError},
    serve, step_tool,
};
use inngest_failure::{Dispatcher, Failure, HandlerError, State, Step, on_failure, sdk};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tracing_subscriber::filter::LevelFilter;

/// Where the SDK says that it is, unless `INNGEST_SERVE_PATH` is set.
const PATH: &str = "/api/inngest";

/// What Inngest allows a call.
const MAX_CALL_BYTES: usize = 4 * 1024 * 1024;

/// Serves a shop's functions and their failure handlers to Inngest, at /api/inngest on 127.0.0.1
///
/// `checkout` fails for an order of more than 1000.00 EUR, or to another country than `DE`,
/// `send-invoice` for an address that ends in `.invalid`
#[derive(Parser)]
#[command(name = "sdk-server", after_help = AFTER_HELP, verbatim_doc_comment)]
struct Cli {
    /// The port to listen on; 0 takes one that is free
    #[arg(long, env, default_value_t = 3000)]
    port: u16,
}

const AFTER_HELP: &str = "\
Environment:
  INNGEST_DEV=1                 unsigned calls are believed, as the dev server makes them; not a
                                URL, to which the `inngest` crate adds a slash too many
  INNGEST_SIGNING_KEY           without INNGEST_DEV: what calls must be signed with
  INNGEST_API_ORIGIN            without INNGEST_DEV: where the functions are registered, such as
                                https://api.inngest.com
  INNGEST_SERVE_ORIGIN          where Inngest reaches this server, if not at localhost

Exit status:
  0  stopped by Ctrl-C or SIGTERM, after the calls that had begun were answered
  2  the command line, the environment or the port is wrong

Examples:
  INNGEST_DEV=1 cargo run -p examples --features sdk --bin sdk-server
  npx inngest-cli@latest dev -u http://localhost:3000/api/inngest   in another terminal";

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

async fn run(cli: Cli) -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_max_level(LevelFilter::INFO).with_writer(io::stderr).init();

    let app = app(&Shop::default())?;
    // In dev mode whoever reaches the server is believed: so nobody but this machine does.
    let address = (Ipv4Addr::LOCALHOST, cli.port);
    let listener = TcpListener::bind(address).map_err(|error| {
        format!("cannot listen on port {}: {error}; choose another one with `--port`", cli.port)
    })?;
    let stop = stop_signal()?;
    println!("listening on http://{}{PATH}", listener.local_addr()?);
    axum::Server::from_tcp(listener)?
        .serve(app.into_make_service())
        .with_graceful_shutdown(stop)
        .await?;
    Ok(())
}

/// The functions and the handlers, as one Inngest app.
fn app(shop: &Shop) -> Result<Router, Box<dyn Error>> {
    let client = Inngest::new("shop");
    let functions = vec![checkout(&client, shop), send_invoice(&client, shop)];
    let dispatcher = Dispatcher::builder()
        .app("shop")
        .state(shop.clone())
        // A handler for a function that is not among these would never run: `build` says so.
        .known_functions(functions.iter().map(ServableFn::slug))
        .build()?;

    // All functions of a server take one type, and failure events are no `Order`.
    let mut handler: Handler<sdk::EventData<Order>, SdkError> = Handler::new(&client);
    for function in functions {
        handler.register_fn(sdk::adapt(&client, function));
    }
    handler.register_fns(sdk::try_servable_fns(&dispatcher, &client)?);

    let inngest = get(serve::axum::introspect).put(serve::axum::register).post(serve::axum::invoke);
    Ok(Router::new()
        .route(PATH, inngest)
        .route_layer(DefaultBodyLimit::max(MAX_CALL_BYTES)) // axum's own limit is 2 MB
        .route_layer(sdk::Layer::from_env()?)
        .with_state(Arc::new(handler)))
}

/// The data of the shop's events.
#[derive(Deserialize)]
struct Order {
    order_id: String,
    cents: u64,
    units: u32,
    country: String,
    email: String,
}

/// Takes the goods and the money, and then finds that nobody delivers there.
fn checkout(client: &Inngest, shop: &Shop) -> ServableFn<Order, SdkError> {
    let shop = shop.clone();
    client.create_function(
        FunctionOpts::new("checkout"),
        Trigger::event("shop/order.placed"),
        move |input: Input<Order>, step: step_tool::Step| {
            let shop = shop.clone();
            async move {
                let order = &input.event.data;
                let units: u32 = step.run("reserve-stock", || shop.reserve(order)).await?;
                let cents: u64 = step.run("charge-card", || shop.charge(order)).await?;
                if order.country != "DE" {
                    // The layer tells Inngest that there is no point in another attempt.
                    let message = format!("no courier delivers to `{}`", order.country);
                    let error = NonRetryableError { message, cause: None };
                    return Err(DevError::NoRetry(error).into());
                }
                Ok(json!({ "units": units, "cents": cents }))
            }
        },
    )
}

/// Takes a number for the invoice, and then finds that nobody takes the mail.
fn send_invoice(client: &Inngest, shop: &Shop) -> ServableFn<Order, SdkError> {
    let shop = shop.clone();
    client.create_function(
        FunctionOpts { retries: 1, ..FunctionOpts::new("send-invoice") },
        Trigger::event("shop/order.shipped"),
        move |input: Input<Order>, step: step_tool::Step| {
            let shop = shop.clone();
            async move {
                let order = &input.event.data;
                let number: u32 = step.run("take-number", || shop.take_number(order)).await?;
                if order.email.ends_with(".invalid") {
                    let error = RetryAfterError {
                        message: format!("no server takes mail for {}", order.email),
                        after: Duration::from_secs(5),
                        cause: None,
                    };
                    return Err(DevError::RetryAt(error).into());
                }
                Ok(json!({ "invoice": number }))
            }
        },
    )
}

/// Give the money back, then put the goods back.
///
/// Each part is a step: one that has completed is not done again because a later one fails.
#[on_failure(function = "checkout", retries = 5, timeout = "30s")]
async fn undo_checkout(
    failure: Failure<Order>,
    State(shop): State<Shop>,
    step: Step,
) -> Result<String, HandlerError> {
    let order_id = &failure.event.data.order_id;

    // The same however often the step runs: the provider pays once.
    let key = failure.idempotency_key("refund");
    let cents = step.run("refund", || shop.refund(order_id, key)).await?;
    let units = step.run("restock", || shop.restock(order_id)).await?;

    Ok(format!("refunded {}.{:02} EUR, restocked {units}", cents / 100, cents % 100))
}

/// Have the accounts know that a number was taken for nothing, and why.
#[on_failure(function = "send-invoice")]
async fn void_invoice(
    failure: Failure<Order>,
    State(shop): State<Shop>,
    step: Step,
) -> Result<String, HandlerError> {
    let order_id = &failure.event.data.order_id;
    let Some(number) = step.run("void", || shop.void(order_id)).await? else {
        return Ok("no number was taken".to_owned());
    };

    let key = failure.idempotency_key("tell-accounts");
    let text = format!("invoice {number} is void: {}", failure.error);
    step.run("tell-accounts", || shop.tell_accounts(key, text)).await?;

    Ok(format!("voided {number}"))
}

/// Put every failure that has no other handler into the log.
#[on_failure(fallback, id = "log")]
async fn log(failure: Failure) {
    tracing::error!(
        function_id = failure.function_id,
        run_id = failure.run_id,
        "{}",
        failure.error
    );
}

/// The shop's books, for as long as the program runs; they stand for the clients of a database, of a payment provider
/// and of a mail service. A clone is the same books.
#[derive(Clone, Default)]
struct Shop {
    books: Arc<Mutex<Books>>,
}

#[derive(Default)]
struct Books {
    /// Units by order.
    reserved: HashMap<String, u32>,
    /// Cents by order.
    charged: HashMap<String, u64>,
    /// Cents by idempotency key.
    refunded: HashMap<String, u64>,
    /// Numbers by order, and how many were taken.
    invoices: HashMap<String, u32>,
    numbers: u32,
    /// Idempotency keys.
    told: HashSet<String>,
}

/// What is done here a second time, as a step may be, has no further effect.
impl Shop {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn reserve(&self, order: &Order) -> Result<u32, ShopError> {
        self.books().reserved.insert(order.order_id.clone(), order.units);
        Ok(order.units)
    }

    async fn charge(&self, order: &Order) -> Result<u64, ShopError> {
        if order.cents > 100_000 {
            return Err(ShopError { message: "the card was declined".to_owned() });
        }
        self.books().charged.insert(order.order_id.clone(), order.cents);
        Ok(order.cents)
    }

    async fn take_number(&self, order: &Order) -> Result<u32, ShopError> {
        let mut books = self.books();
        let next = books.numbers + 1;
        let number = *books.invoices.entry(order.order_id.clone()).or_insert(next);
        books.numbers = books.numbers.max(number);
        Ok(number)
    }

    /// Pays once per key, and gives how much.
    async fn refund(&self, order_id: &str, key: String) -> Result<u64, ShopError> {
        let mut books = self.books();
        // How much is a matter of the books, not of the event.
        let charged = books.charged.remove(order_id).unwrap_or(0);
        Ok(*books.refunded.entry(key).or_insert(charged))
    }

    async fn restock(&self, order_id: &str) -> Result<u32, ShopError> {
        Ok(self.books().reserved.remove(order_id).unwrap_or(0))
    }

    async fn void(&self, order_id: &str) -> Result<Option<u32>, ShopError> {
        Ok(self.books().invoices.get(order_id).copied())
    }

    async fn tell_accounts(&self, key: String, text: String) -> Result<(), ShopError> {
        if self.books().told.insert(key) {
            tracing::info!("to the accounts: {text}");
        }
        Ok(())
    }
}

/// What went wrong in a step. The SDK demands of such an error that it can be written as JSON and read again.
#[derive(Debug, Deserialize, Serialize)]
struct ShopError {
    message: String,
}

impl fmt::Display for ShopError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for ShopError {}

impl From<ShopError> for SdkError {
    fn from(error: ShopError) -> Self {
        DevError::Basic(error.message).into()
    }
}

/// Done at the first Ctrl-C or SIGTERM from now on.
#[cfg(unix)]
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("stopping, once the calls that have begun are answered");
    })
}

/// Done at the first Ctrl-C from now on.
#[cfg(windows)]
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = tokio::signal::windows::ctrl_c()?;
    Ok(async move {
        interrupt.recv().await;
        tracing::info!("stopping, once the calls that have begun are answered");
    })
}
