//! What `build` finds, all at once.

use inngest_failure::{Dispatcher, Failure, State, handlers, on_failure};

use tests::Log;

use crate::builder;

#[derive(Clone)]
struct Shop;

#[on_failure(function = "checkout")]
async fn first() {}

#[on_failure(function = "checkout")]
async fn second() {}

#[on_failure(function = "shop-refund")]
async fn doubled() {}

#[on_failure(function = "chekout", id = "misspelt")]
async fn misspelt() {}

#[on_failure(function = "*", app = "shpo", id = "another-app")]
async fn another_app() {}

#[on_failure(function = "refund", id = "stateful")]
async fn stateful(_: State<Shop>, _: Failure, _: State<String>) {}

/// The message with this file's lines replaced by the names of the handlers in it.
fn message(error: &inngest_failure::BuildError) -> String {
    let mut message = error.to_string();
    for problem in error.problems() {
        if let Some(location) = problem.location {
            message = message.replace(&format!(" ({location})"), "");
        }
    }
    message
}

#[test]
fn every_problem_is_reported_at_once_sorted_by_its_place() {
    let error = builder()
        .register(handlers![second, first, doubled, misspelt, another_app, stateful])
        .register(handlers![first])
        .known_functions(["shop-checkout", "shop-refund"])
        .state(1_u8)
        .state(2_u8)
        .build()
        .unwrap_err();
    // Another handler's place in the text is the only one left.
    let message = message(&error);
    let second = message.rsplit_once("`integration::build::second` (").unwrap().1;
    let place = &second[..second.find(')').unwrap()];
    assert!(place.starts_with("tests/integration/build.rs:"), "{place}");
    assert_eq!(message.replace(&format!(" ({place})"), ""), "\
7 problems with the failure handlers:
  - state of type `u8` is given twice; give one value of a type, and wrap a second one in a type of its own
  - `integration::build::first`: its id `shop-checkout-failure` is also that of `integration::build::second`; give all but one an `id = \"..\"` of their own
  - `integration::build::doubled`: `function = \"shop-refund\"` begins with its own app `shop`, so it means `shop-shop-refund`; write `function = \"refund\"`, or list `shop-shop-refund` in `.known_functions(..)` if the function is really called so
  - `integration::build::misspelt`: `function = \"chekout\"` means `shop-chekout`, which fits none of the known functions; did you mean `shop-checkout`?
  - `integration::build::another_app`: `function = \"*\"` means `shpo-*`, which fits none of the known functions; correct it, or add the function to `.known_functions(..)`
  - `integration::build::stateful`: it needs state of type `alloc::string::String`, and the dispatcher has none; give the dispatcher's builder a `.state(..)` of that type
  - `integration::build::stateful`: it needs state of type `integration::build::Shop`, and the dispatcher has none; give the dispatcher's builder a `.state(..)` of that type");
}

#[test]
fn its_debug_is_the_same_list_so_that_unwrap_reads_well() {
    let error = builder().build().unwrap_err();
    assert_eq!(format!("{error:?}"), error.to_string());
    assert_eq!(
        error.to_string(),
        "1 problem with the failure handlers:\n  - there are no handlers at all; give some to \
         `.register(handlers![..])`, or leave out `.without_inventory()`"
    );
}

#[test]
fn a_doubled_id_is_allowed_if_the_function_is_really_called_so() {
    let dispatcher = builder()
        .register(handlers![doubled])
        .known_functions(["shop-shop-refund"])
        .build()
        .unwrap();
    assert_eq!(dispatcher.handlers()[0].id, "shop-shop-refund-failure");
}

#[test]
fn an_id_that_is_no_composite_one_is_a_warning_where_there_is_no_app() {
    let (log, _guard) = Log::start(tracing::Level::WARN);
    Dispatcher::builder().without_inventory().register(handlers![first]).build().unwrap();
    let log = log.text();
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(
        log.contains("there is no `app`, so `function = \"checkout\"` is a whole composite id"),
        "{log}"
    );
    assert!(
        log.contains("handler=\"integration::build::first\" location=tests/integration/build.rs:"),
        "{log}"
    );
}

#[test]
fn a_blank_app_is_refused() {
    let error = Dispatcher::builder()
        .without_inventory()
        .register(handlers![first])
        .app(" ")
        .build()
        .unwrap_err();
    assert!(error.to_string().contains("the dispatcher's `app` is blank"), "{error}");
}

#[test]
fn every_handler_of_the_program_registers_itself() {
    let error = Dispatcher::builder().app("shop").build().unwrap_err();
    // Those of this file among them: `first` and `second` still have one id.
    assert!(error.problems().iter().any(|problem| {
        problem.handler == Some("integration::build::first") && problem.fault.contains("its id")
    }));
}

#[test]
fn a_handler_is_listed_with_all_that_is_known_of_it() {
    /// Gives the money back.
    ///
    /// Once.
    #[on_failure(
        function = "charge-*",
        app = "billing",
        error = "CardError",
        name = "refund",
        retries = 7,
        timeout = "1m30s",
        concurrency = 2
    )]
    async fn give_money_back() {}

    let dispatcher = builder().register(handlers![give_money_back]).build().unwrap();
    let [info] = dispatcher.handlers() else { panic!("one handler") };
    assert_eq!(info.id, "give-money-back");
    assert_eq!(info.name, "refund");
    assert_eq!(info.selector, "billing-charge-*, error CardError");
    assert_eq!(info.triggers.len(), 1);
    assert_eq!(info.triggers[0].event, "inngest/function.failed");
    assert_eq!(
        info.triggers[0].expression.as_deref(),
        Some(
            "event.data.function_id.startsWith('billing-charge-') && event.data.error.name == 'CardError'"
        )
    );
    assert_eq!((info.retries, info.concurrency), (7, Some(2)));
    assert_eq!(info.timeout.unwrap().as_secs(), 90);
    assert!(info.rust_name.ends_with("::give_money_back"), "{}", info.rust_name);
    assert_eq!(info.description, "Gives the money back.\n\nOnce.");
}
