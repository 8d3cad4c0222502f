use inngest_failure::on_failure;

#[on_failure(function = "checkout")]
async unsafe fn undo() {}

fn main() {}
