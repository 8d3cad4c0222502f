use inngest_failure::on_failure;

struct Undo;

#[on_failure(function = "checkout")]
impl Undo {
    async fn undo() {}
}

fn main() {}
