use inngest_failure::on_failure;

#[on_failure(function = "checkout")]
mod undo {
    pub async fn undo() {}
}

fn main() {}
