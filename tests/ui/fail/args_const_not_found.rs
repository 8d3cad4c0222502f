use inngest_failure::on_failure;

#[on_failure(function = CHECKOUT)]
async fn undo() {}

#[on_failure(function = "refund", app = apps::SHOP)]
async fn undo_refund() {}

fn main() {}
