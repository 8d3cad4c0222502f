mod reexport {
    pub use inngest_failure;
    pub use inngest_failure as failures;
}

use reexport::failures as renamed;

#[renamed::on_failure(function = "a", crate = crate::reexport::inngest_failure)]
async fn by_module() {}

#[renamed::on_failure(function = "b", crate = reexport::failures)]
async fn by_other_name() {}

#[renamed::on_failure(function = "c", crate = renamed)]
fn by_import() {}

mod deep {
    #[inngest_failure::on_failure(function = "d", crate = super::renamed)]
    pub async fn by_super(_: inngest_failure::Failure) {}
}

fn main() {
    let handlers = renamed::handlers![by_module, deep::by_super];
    assert_eq!(handlers.len(), 2);
    let dispatcher = renamed::Dispatcher::builder().build().unwrap();
    assert_eq!(dispatcher.handlers().len(), 4);
}
