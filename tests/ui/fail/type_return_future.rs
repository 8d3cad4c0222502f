use inngest_failure::on_failure;

#[on_failure(function = "checkout")]
fn undo() -> impl Future<Output = ()> {
    async {}
}

fn main() {}
