use inngest_failure::handlers;

fn main() {
    let _ = handlers!["undo"];
}
