use inngest_failure::on_failure;

#[on_failure(function = "checkout")]
async fn undo() -> Result<u32, std::io::Error> {
    Ok("one")
}

fn main() {}
