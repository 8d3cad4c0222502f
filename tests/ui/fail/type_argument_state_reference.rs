use inngest_failure::{State, on_failure};

#[derive(Clone)]
struct Shop;

#[on_failure(function = "checkout")]
async fn undo(State(_shop): State<&Shop>) {}

fn main() {}
