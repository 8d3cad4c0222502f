use inngest_failure::{Dispatcher, handlers, on_failure};

#[on_failure(function = "*")]
async fn r#type() {}

#[on_failure(fallback)]
fn r#match(r#in: inngest_failure::Failure) {
    drop(r#in);
}

fn main() {
    let dispatcher = Dispatcher::builder().build().unwrap();
    let [second, first] = dispatcher.handlers() else { panic!("{dispatcher:?}") };
    assert_eq!((first.id.as_str(), second.id.as_str()), ("type", "match"));
    assert!(first.rust_name.ends_with("::type"), "{}", first.rust_name);
    assert_eq!(handlers![r#type, r#match].len(), 2);
}
