//! A crate that is named is linked, and its handlers register themselves.

use elsewhere as _;
use inngest_failure::Dispatcher;

#[test]
fn a_crate_that_is_named_brings_its_handlers() {
    let dispatcher = Dispatcher::builder().build().unwrap();
    let ids: Vec<_> = dispatcher.handlers().iter().map(|handler| handler.id.as_str()).collect();
    assert_eq!(ids, ["shop-elsewhere-failure"]);

    let handler = &dispatcher.handlers()[0];
    assert_eq!(handler.rust_name, "elsewhere::handler_elsewhere");
    assert!(handler.location.file.ends_with("elsewhere/src/lib.rs"), "{}", handler.location);
    assert_eq!(handler.location.line, 8);
    assert_eq!(handler.description, "Handles a failure from another crate.");
}

#[test]
fn a_handler_that_registered_itself_and_is_registered_again_counts_once() {
    let dispatcher = Dispatcher::builder()
        .register(inngest_failure::handlers![elsewhere::handler_elsewhere])
        .build()
        .unwrap();
    assert_eq!(dispatcher.handlers().len(), 1);
}
