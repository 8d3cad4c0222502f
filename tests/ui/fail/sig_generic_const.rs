use inngest_failure::on_failure;

#[on_failure(function = "checkout")]
async fn undo<const N: usize>() {}

fn main() {}
