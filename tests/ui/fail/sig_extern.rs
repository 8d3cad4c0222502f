use inngest_failure::on_failure;

#[on_failure(function = "checkout")]
extern "C" fn undo() {}

fn main() {}
