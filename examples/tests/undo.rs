//! The shop's rollback of failed checkouts, called as Inngest calls it, without a server.

use examples::shop::{self, Store};
use inngest_failure::testing::{FailureBuilder, TestRun, Transcript, failure};
use serde_json::json;

/// A checkout of order `o-1001` that had reserved the stock, and failed after that.
fn checkout() -> FailureBuilder {
    failure("shop-checkout")
        .error(("CardError", "card declined"))
        .completed_step("reserve-stock", json!({ "reservation": "r-1001", "qty": 3 }))
}

/// A checkout that had charged the card as well, and could not ship.
fn charged() -> FailureBuilder {
    checkout()
        .error("no carrier")
        .completed_step("charge-card", json!({ "charge_id": "ch_1001", "amount_cents": 4990 }))
        .failed_step("ship")
}

/// The rollback of the failed run, and the books that are left.
async fn undo(
    failure: FailureBuilder,
    prepare: impl FnOnce(TestRun) -> TestRun,
) -> (Transcript, String) {
    let store = Store::open(None).unwrap();
    let dispatcher = shop::dispatcher(&store).build().unwrap();
    let run = TestRun::new(&dispatcher, "shop-checkout-rollback", failure.build());
    let transcript = prepare(run).run().await;
    (transcript, store.totals().unwrap().to_string())
}

/// Whether the order was undone, and once only.
fn is_undone(books: &str) -> bool {
    ["refunds         1, 49.90 EUR", "units restocked 3\n"].iter().all(|line| books.contains(line))
}

#[tokio::test]
async fn the_last_step_is_undone_first() {
    let (transcript, books) = undo(charged(), |run| run).await;
    transcript.assert_undone(["charge-card", "reserve-stock"]);
    transcript.assert_steps_known();
    assert!(is_undone(&books), "{books}");
}

#[tokio::test]
async fn what_had_not_completed_is_left_alone() {
    let (transcript, books) = undo(checkout().failed_step("charge-card"), |run| run).await;
    transcript.assert_undone(["reserve-stock"]);
    transcript.assert_steps_known();
    assert!(books.contains("refunds         0,"), "{books}");
}

#[tokio::test]
async fn a_restock_that_fails_twice_refunds_once() {
    let (transcript, books) = undo(charged(), |run| run.fail_step("undo/reserve-stock", 2)).await;
    transcript.assert_undone(["charge-card", "reserve-stock"]);
    // The provider is busy at first; what the test makes fail does not run at all.
    transcript.assert_ran("undo/charge-card", 2);
    transcript.assert_ran("undo/reserve-stock", 1);
    assert!(is_undone(&books), "{books}");
}

#[tokio::test]
async fn a_refund_that_fails_for_good_does_not_keep_the_stock_back() {
    let (transcript, books) = undo(charged(), |run| run.fail_step("undo/charge-card", 5)).await;
    transcript.assert_failed("`charge-card`: made to fail by the test | undone: `reserve-stock`");
    assert!(books.contains("refunds         0,"), "{books}");
    assert!(books.contains("units restocked 3\n"), "{books}");
}

#[tokio::test]
async fn answers_that_are_lost_pay_nothing_twice() {
    let mut repeated = 0;
    for seed in 0..50 {
        let (transcript, books) = undo(charged(), |run| run.seed(seed).lose_answers(0.4)).await;
        transcript.assert_undone(["charge-card", "reserve-stock"]);
        assert!(is_undone(&books), "{transcript}\n{books}");
        repeated += usize::from(transcript.completions("undo/charge-card") > 1);
    }
    assert!(repeated > 0, "no step has run again, so nothing was shown");
}
