use inngest_failure::on_failure;

struct Shop;

impl Shop {
    #[on_failure(function = "checkout")]
    async fn undo(_shop: inngest_failure::State<Self>) {}
}

fn main() {}
