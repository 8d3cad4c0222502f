use inngest_failure::on_failure;

struct Declined;

#[on_failure(function = "checkout")]
async fn undo() -> Result<(), Declined> {
    Err(Declined)
}

fn main() {}
