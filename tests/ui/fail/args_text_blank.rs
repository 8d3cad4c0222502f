use inngest_failure::on_failure;

#[on_failure(function = " ", app = "  ", error = "\t", id = "\n", name = " ")]
async fn undo() {}

fn main() {}
