//! What the attribute writes does not mean the names of its surroundings.

#![allow(dead_code, non_camel_case_types, non_snake_case, non_upper_case_globals, unused_macros)]

use ::inngest_failure::on_failure;

struct Result;
struct Option;
struct Box;
struct String;
struct Vec;
struct Value;
struct Context;
struct Arguments;
struct Registration;
struct Handler;
struct Call;
struct Needs;
struct HandlerOutput;
trait Send {}
trait Sync {}
trait Sized {}
trait Fn {}
trait FnOnce {}
trait Future {}
trait Into {}
trait From {}
trait Drop {}

fn Ok() {}
fn Err() {}
fn Some() {}
const None: u8 = 0;
fn drop() {}
fn boxed() {}
fn text() {}

mod core {}
mod std {}
mod alloc {}
mod inngest_failure {}
mod inventory {}
mod __private {}

type u64 = ();
type u32 = ();
type str = ();
type bool = ();

macro_rules! concat {
    () => {};
}
macro_rules! module_path {
    () => {};
}
macro_rules! file {
    () => {};
}
macro_rules! line {
    () => {};
}
macro_rules! unreachable {
    () => {};
}

const FUNCTION: &'static ::core::primitive::str = "refund";

#[on_failure(function = "checkout", app = "shop", retries = 1, timeout = "1s", concurrency = 1)]
async fn undo(
    _failure: ::inngest_failure::Failure,
) -> ::core::result::Result<(), ::inngest_failure::HandlerError> {
    ::core::result::Result::Ok(())
}

#[on_failure(function = FUNCTION, cancelled)]
fn undo_refund(_: ::inngest_failure::State<&'static ::core::primitive::str>) {}

fn main() {
    let dispatcher = ::inngest_failure::Dispatcher::builder().state("").build().unwrap();
    let [first, second] = dispatcher.handlers() else { ::core::panic!() };
    assert_eq!(first.id, "refund-failure");
    assert_eq!(second.id, "shop-checkout-failure");
    assert_eq!(second.retries, 1);
    assert_eq!(::inngest_failure::handlers![undo, undo_refund].len(), 2);
}
