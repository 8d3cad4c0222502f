//! A crate that is a dependency but never named is not linked: `build` says so.

use inngest_failure::Dispatcher;

#[test]
fn a_crate_that_is_never_named_brings_nothing_and_the_error_says_why() {
    let error = Dispatcher::builder().build().unwrap_err();
    assert_eq!(
        error.to_string(),
        "1 problem with the failure handlers:\n  - there are no handlers at all; annotate a function \
         with `#[on_failure(..)]`; if there is one in another crate, that crate is not linked, for the \
         compiler leaves out a crate that is never named: name it (`use payments as _;`), or give its \
         handlers to `.register(handlers![..])`"
    );
}
