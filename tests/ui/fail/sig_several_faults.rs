use inngest_failure::on_failure;

#[on_failure(function = "checkout", retry = 3)]
const unsafe extern "C" fn undo<T>(_order: &T) {}

fn main() {}
