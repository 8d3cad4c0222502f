use inngest_failure::on_failure;

use std::pin::Pin;

#[on_failure(function = "checkout")]
fn undo() -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async {})
}

fn main() {}
