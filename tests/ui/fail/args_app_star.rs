use inngest_failure::on_failure;

#[on_failure(app = "a*", function = "checkout")]
async fn undo() {}

fn main() {}
