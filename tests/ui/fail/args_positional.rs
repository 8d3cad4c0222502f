use inngest_failure::on_failure;

#[on_failure("checkout")]
async fn undo() {}

fn main() {}
