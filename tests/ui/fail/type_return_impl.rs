use inngest_failure::on_failure;

#[on_failure(function = "checkout")]
async fn undo() -> impl std::fmt::Display {
    "undone"
}

fn main() {}
