use inngest_failure::on_failure;

use std::{future::ready, rc::Rc};

#[on_failure(function = "checkout")]
async fn undo() {
    let shared = Rc::new(1);
    ready(()).await;
    drop(shared);
}

fn main() {}
