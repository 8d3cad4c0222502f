use inngest_failure::on_failure;

#[on_failure(function = concat!("check", "out"))]
async fn undo() {}

fn main() {}
