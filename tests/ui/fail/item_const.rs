use inngest_failure::on_failure;

#[on_failure(function = "checkout")]
const UNDO: fn() = || {};

fn main() {}
