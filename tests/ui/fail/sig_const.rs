use inngest_failure::on_failure;

#[on_failure(function = "checkout")]
const fn undo() {}

fn main() {}
