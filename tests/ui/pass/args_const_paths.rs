use inngest_failure::{Dispatcher, on_failure};

const CHECKOUT: &str = "checkout";

mod ids {
    pub const SHOP: &str = "shop";
    pub mod undo {
        pub static ID: &str = "unused";
        pub const NAME: &str = concat!("undo", " ", "a checkout");
    }
}

struct Errors;

impl Errors {
    const CARD: &'static str = "CardError";
}

#[on_failure(function = CHECKOUT, app = crate::ids::SHOP, error = Errors::CARD, name = ids::undo::NAME)]
async fn undo() {}

#[on_failure(function = self::CHECKOUT, id = ids::SHOP)]
async fn again() {}

fn main() {
    assert_eq!(ids::undo::ID, "unused");
    let dispatcher = Dispatcher::builder().build().unwrap();
    let [again, undo] = dispatcher.handlers() else { panic!("{dispatcher:?}") };
    assert_eq!(again.id, "shop");
    assert_eq!(undo.id, "shop-checkout-failure");
    assert_eq!(undo.name, "undo a checkout");
    assert_eq!(undo.selector, "shop-checkout, error CardError");
}
