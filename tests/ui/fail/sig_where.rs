use inngest_failure::on_failure;

#[on_failure(function = "checkout")]
async fn undo()
where
    String: Clone,
{
}

fn main() {}
