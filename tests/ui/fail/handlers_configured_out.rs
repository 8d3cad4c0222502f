use inngest_failure::handlers;

#[cfg(any())]
#[inngest_failure::on_failure(function = "checkout")]
async fn undo() {}

fn main() {
    let _ = handlers![undo];
}
