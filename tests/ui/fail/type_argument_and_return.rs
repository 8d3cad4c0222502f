use inngest_failure::on_failure;

#[on_failure(function = "checkout")]
async fn undo(order_id: u32) -> u32 {
    order_id
}

fn main() {}
