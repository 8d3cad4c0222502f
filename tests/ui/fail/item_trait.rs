use inngest_failure::on_failure;

#[on_failure(function = "checkout")]
trait Undo {
    fn undo();
}

fn main() {}
