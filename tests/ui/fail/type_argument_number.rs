use inngest_failure::on_failure;

#[on_failure(function = "checkout")]
async fn undo(_order_id: u32) {}

fn main() {}
