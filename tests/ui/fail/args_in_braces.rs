use inngest_failure::on_failure;

#[on_failure{function = "checkout", retry = 3}]
async fn undo() {}

fn main() {}
