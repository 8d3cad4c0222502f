use inngest_failure::{Dispatcher, handlers, on_failure};
use payments::{all, charge as recharge, deep::*};

#[on_failure(function = "checkout")]
async fn undo() {}

mod payments {
    use inngest_failure::on_failure;

    #[on_failure(function = "refund")]
    pub async fn refund() {}

    #[on_failure(function = "charge")]
    pub(crate) async fn charge() {}

    #[on_failure(function = "ship")]
    async fn private() {}

    pub mod deep {
        #[inngest_failure::on_failure(function = "pack")]
        pub(in crate::payments) async fn restricted() {}

        #[inngest_failure::on_failure(function = "bill")]
        pub(crate) fn by_glob() {}

        pub fn all() -> usize {
            inngest_failure::handlers![super::private, self::restricted].len()
        }
    }

    pub fn all() -> usize {
        inngest_failure::handlers![private, deep::restricted].len() + deep::all()
    }
}

fn main() {
    let handlers = handlers![undo, payments::refund, crate::payments::charge, recharge, by_glob,];
    let dispatcher = Dispatcher::builder().without_inventory().register(handlers).build().unwrap();
    let ids: Vec<_> = dispatcher.handlers().iter().map(|handler| handler.id.as_str()).collect();
    // `charge` is listed twice, by two names, and counts once.
    assert_eq!(ids, ["bill-failure", "charge-failure", "checkout-failure", "refund-failure"]);
    assert_eq!(all(), 4);
    assert_eq!(Dispatcher::builder().build().unwrap().handlers().len(), 6);
}
