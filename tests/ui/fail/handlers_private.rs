use inngest_failure::handlers;

mod payments {
    #[inngest_failure::on_failure(function = "charge")]
    async fn refund() {}
}

fn main() {
    let _ = handlers![payments::refund];
}
