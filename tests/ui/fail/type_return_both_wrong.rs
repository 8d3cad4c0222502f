use inngest_failure::on_failure;

struct Receipt;
struct Declined;

#[on_failure(function = "checkout")]
async fn undo() -> Result<Receipt, Declined> {
    Err(Declined)
}

fn main() {}
