use inngest_failure::on_failure;

#[on_failure(function = "checkout")]
async fn undo<'a>(_order: &'a str) {}

fn main() {}
