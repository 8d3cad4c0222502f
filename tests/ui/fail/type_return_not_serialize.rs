use inngest_failure::{HandlerError, on_failure};

struct Receipt;

#[on_failure(function = "checkout")]
async fn undo() -> Result<Receipt, HandlerError> {
    Ok(Receipt)
}

fn main() {}
