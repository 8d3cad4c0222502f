use inngest_failure::on_failure;

mod ids {
    pub const CHECKOUTS: &str = "checkout-*";
}

#[on_failure(function = ids::CHECKOUTS, step = "charge-card")]
async fn undo() {}

fn main() {}
