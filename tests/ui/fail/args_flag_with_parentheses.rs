use inngest_failure::on_failure;

#[on_failure(fallback("checkout"))]
async fn undo() {}

fn main() {}
