use inngest_failure::{handlers, on_failure};

#[on_failure(function = "checkout", retry = 3)]
async fn wrong_argument() {}

#[on_failure(function = "refund")]
async fn wrong_type(_order_id: u32) {}

#[on_failure(function = "ship")]
async fn wrong_signature<T>() {}

fn main() {
    let _ = handlers![wrong_argument, wrong_type, wrong_signature];
}
