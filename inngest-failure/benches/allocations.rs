//! How often, and how much, one dispatch allocates, beside parsing the same event by hand:
//!
//! `cargo bench -p inngest-failure --bench allocations`

use divan::{AllocProfiler, Bencher};
use inngest_failure::{Dispatcher, Failure, handlers, on_failure};
use serde_json::Value;

#[global_allocator]
static ALLOC: AllocProfiler = AllocProfiler::system();

/// The example of Inngest's documentation.
const EVENT: &[u8] = include_bytes!("documentation-example.event.json");

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "read for the sake of the comparison")]
struct Signup {
    billing_plan: String,
}

#[on_failure(function = "my-gcp-cloud-functions-app-hello-inngest")]
async fn handle(_: Failure<Signup>) {}

fn main() {
    divan::main();
}

#[divan::bench]
fn one_dispatch_to_one_handler(bencher: Bencher<'_, '_>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let dispatcher =
        Dispatcher::builder().without_inventory().register(handlers![handle]).build().unwrap();
    bencher.bench_local(|| runtime.block_on(dispatcher.dispatch_json(EVENT)).unwrap());
}

#[divan::bench]
fn the_event_as_a_json_value() -> Value {
    serde_json::from_slice(EVENT).unwrap()
}
