use inngest_failure::on_failure;

#[on_failure(function = "checkout")]
fn undo(_order_id: u32) {}

fn main() {}
