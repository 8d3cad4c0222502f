//! The shop's handler of failed checkouts, called as Inngest calls it, without a server.

use examples::shop::{self, Store};
use inngest_failure::testing::{TestRun, Transcript, failure};
use serde_json::json;

/// A run that undoes the checkout of order `o-1001`, and the books that are left.
async fn undo(prepare: impl FnOnce(TestRun) -> TestRun) -> (Transcript, String) {
    let store = Store::open(None).unwrap();
    let dispatcher = shop::dispatcher(&store).unwrap();
    let event = failure("shop-checkout")
        .error(("CardError", "card declined"))
        .data(json!({ "order_id": "o-1001" }))
        .build();
    let run = TestRun::new(&dispatcher, "shop-checkout-failure", event);
    let transcript = prepare(run).run().await;
    (transcript, store.totals().unwrap().to_string())
}

/// Whether the order was undone, and once only.
fn is_undone(books: &str) -> bool {
    ["refunds         1, 49.90 EUR", "units restocked 3\n", "mails           1\n"]
        .iter()
        .all(|line| books.contains(line))
}

#[tokio::test]
async fn a_restock_that_fails_twice_refunds_once() {
    let (transcript, books) = undo(|run| run.fail_step("restock", 2)).await;
    assert_eq!(transcript.assert_succeeded(), "refunded 49.90 EUR, restocked 3, mail sent",);
    transcript.assert_completed(["refund", "restock", "apologise"]);
    // The provider is busy at first, and the mail service hangs up; what the test makes fail does not run at all.
    transcript.assert_ran("refund", 2);
    transcript.assert_ran("restock", 1);
    transcript.assert_ran("apologise", 2);
    assert!(is_undone(&books), "{books}");
}

#[tokio::test]
async fn nobody_hears_of_a_refund_that_was_not_made() {
    let (transcript, books) = undo(|run| run.fail_step("refund", 5)).await;
    transcript.assert_failed("made to fail by the test");
    transcript.assert_completed([]);
    assert!(
        books.contains("refunds         0,") && books.contains("mails           0\n"),
        "{books}"
    );
}

#[tokio::test]
async fn answers_that_are_lost_pay_nothing_twice() {
    let mut repeated = 0;
    for seed in 0..50 {
        let (transcript, books) = undo(|run| run.seed(seed).lose_answers(0.4)).await;
        transcript.assert_succeeded();
        assert!(is_undone(&books), "{transcript}\n{books}");
        repeated += usize::from(transcript.completions("refund") > 1);
    }
    assert!(repeated > 0, "no step has run again, so nothing was shown");
}
