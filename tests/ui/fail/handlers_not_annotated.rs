use inngest_failure::handlers;

async fn undo() {}

fn main() {
    let _ = handlers![undo];
}
