use inngest_failure::on_failure;

#[on_failure(function = "checkout")]
async fn undo() -> Result<(), Box<dyn std::error::Error>> {
    Ok(())
}

fn main() {}
