use inngest_failure::on_failure;

#[on_failure(function = "checkout")]
struct Undo;

fn main() {}
