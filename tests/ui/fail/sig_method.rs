use inngest_failure::on_failure;

struct Shop;

impl Shop {
    #[on_failure(function = "checkout")]
    async fn undo(&self) {}

    #[on_failure(function = "refund")]
    async fn undo_refund(self) {}
}

fn main() {}
