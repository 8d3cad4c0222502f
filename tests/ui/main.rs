//! What the attribute accepts and refuses, case by case: `pass/` compiles and runs, `fail/` gives the
//! messages that are recorded next to each case.
//!
//! To record the messages again, then read every one:
//!
//! ```sh
//! TRYBUILD=overwrite cargo test -p tests --test ui
//! ```

#[rustversion::attr(not(stable(1.95)), ignore = "the messages were recorded with rustc 1.95")]
#[test]
fn what_is_refused() {
    trybuild::TestCases::new().compile_fail("ui/fail/*.rs");
}

#[test]
fn what_is_accepted() {
    trybuild::TestCases::new().pass("ui/pass/*.rs");
}
