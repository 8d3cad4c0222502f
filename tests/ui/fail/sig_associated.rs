use inngest_failure::on_failure;

struct Shop;

impl Shop {
    #[on_failure(function = "checkout")]
    async fn undo() {}
}

fn main() {}
