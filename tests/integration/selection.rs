//! Which handlers run for which failure.

use inngest_failure::{Dispatcher, handlers, on_failure};
use serde_json::json;

use crate::event;

const REPORTS: &str = "*-report";

mod ids {
    pub(super) const APP: &str = "billing";
}

#[on_failure(function = "checkout")]
async fn exact() {}

#[on_failure(function = "blog-post")]
async fn composite() {}

#[on_failure(function = "checkout", error = "CardError", id = "card-error")]
async fn card_error() {}

#[on_failure(function = "checkout", cancelled, id = "or-cancelled")]
async fn or_cancelled() {}

#[on_failure(function = REPORTS)]
async fn pattern() {}

#[on_failure(function = "invoice", app = ids::APP)]
async fn of_billing() {}

#[on_failure(function = "*")]
async fn every() {}

#[on_failure(function = "**", app = ids::APP)]
async fn every_of_billing() {}

#[on_failure(fallback)]
async fn rest() {}

#[on_failure(fallback, app = "billing", cancelled)]
async fn rest_of_billing() {}

fn dispatcher() -> Dispatcher {
    crate::builder()
        .register(handlers![
            exact,
            card_error,
            or_cancelled,
            pattern,
            of_billing,
            every,
            every_of_billing,
            rest,
            rest_of_billing
        ])
        .build()
        .unwrap()
}

#[track_caller]
fn ids(dispatch: &inngest_failure::Dispatch) -> Vec<&str> {
    dispatch.runs.iter().map(|run| run.handler_id.as_str()).collect()
}

#[tokio::test]
async fn every_handler_that_takes_the_failure_runs() {
    let dispatcher = dispatcher();
    for (function_id, error, handlers) in [
        ("shop-checkout", "Error", &["every", "or-cancelled", "shop-checkout-failure"][..]),
        (
            "shop-checkout",
            "CardError",
            &["card-error", "every", "or-cancelled", "shop-checkout-failure"],
        ),
        ("shop-daily-report", "Error", &["every", "pattern"]),
        ("billing-invoice", "Error", &["billing-invoice-failure", "every", "every-of-billing"]),
        ("billing-other", "Error", &["every", "every-of-billing", "rest", "rest-of-billing"]),
        ("blog-post", "Error", &["every", "rest"]),
    ] {
        let event = event("inngest/function.failed", function_id, error, json!({}));
        let dispatch = dispatcher.dispatch(event).await;
        assert_eq!(ids(&dispatch), handlers, "{function_id} {error}");
        assert!(!dispatch.is_unhandled() && dispatch.is_ok());
        assert_eq!(dispatch.function_id, function_id);
    }
}

#[tokio::test]
async fn cancelled_runs_go_to_those_that_ask_for_them() {
    let dispatcher = dispatcher();
    for (function_id, handlers, unhandled) in [
        ("shop-checkout", &["or-cancelled"][..], false),
        ("billing-invoice", &["rest-of-billing"], false),
        ("blog-post", &[], true),
    ] {
        let event = event("inngest/function.cancelled", function_id, "Error", json!({}));
        let dispatch = dispatcher.dispatch(event).await;
        assert_eq!(ids(&dispatch), handlers, "{function_id}");
        assert_eq!(dispatch.is_unhandled(), unhandled, "{function_id}");
    }
}

#[tokio::test]
async fn a_bare_star_runs_but_does_not_handle() {
    let dispatcher = crate::builder().register(handlers![exact, every]).build().unwrap();
    let event = event("inngest/function.failed", "blog-post", "Error", json!({}));
    let dispatch = dispatcher.dispatch(event).await;
    assert_eq!(ids(&dispatch), ["every"]);
    assert!(dispatch.is_unhandled());
    assert!(dispatch.is_ok());
}

#[tokio::test]
async fn without_an_app_the_function_is_the_whole_id() {
    let dispatcher =
        Dispatcher::builder().without_inventory().register(handlers![composite]).build().unwrap();
    assert_eq!(dispatcher.handlers()[0].id, "blog-post-failure");
    let event = event("inngest/function.failed", "blog-post", "Error", json!({}));
    assert_eq!(ids(&dispatcher.dispatch(event).await), ["blog-post-failure"]);
}
