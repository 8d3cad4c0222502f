use inngest_failure::on_failure;

#[on_failure(retry = 3, timeout = "soon", concurrency = 0, id = "", cancelled = true)]
async fn undo(_order: &str) {}

fn main() {}
