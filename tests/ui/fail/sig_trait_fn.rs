use inngest_failure::on_failure;

trait Undo {
    #[on_failure(function = "checkout")]
    async fn undo();
}

fn main() {}
