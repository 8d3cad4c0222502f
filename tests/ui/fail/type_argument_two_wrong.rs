use inngest_failure::on_failure;

#[on_failure(function = "checkout")]
async fn undo(_order_id: u32, _failure: inngest_failure::Failure, _name: String) {}

fn main() {}
