use inngest_failure::on_failure;

struct Shop;

#[on_failure(function = "checkout")]
async fn undo(_shop: Shop) {}

fn main() {}
