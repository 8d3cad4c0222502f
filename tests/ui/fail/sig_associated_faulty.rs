use inngest_failure::on_failure;

struct Shop;

impl Shop {
    #[on_failure(function = "checkout", retry = 3)]
    async fn undo() {}
}

fn main() {}
