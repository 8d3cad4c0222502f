use inngest_failure::on_failure;

unsafe extern "C" {
    #[on_failure(function = "checkout")]
    fn undo();
}

fn main() {}
