use inngest_failure::Dispatcher;

const CHECKOUT: &str = "checkout";

#[derive(Clone)]
struct Shop;

mod outer {
    pub(super) struct Order;

    pub mod inner {
        use inngest_failure::{State, on_failure};

        #[on_failure(function = super::super::CHECKOUT)]
        pub async fn undo(State(_shop): State<super::super::Shop>) {
            let _ = super::Order;
        }
    }
}

fn main() {
    let dispatcher = Dispatcher::builder().state(Shop).build().unwrap();
    let handler = &dispatcher.handlers()[0];
    assert_eq!(handler.id, "checkout-failure");
    assert!(handler.rust_name.ends_with("::outer::inner::undo"), "{}", handler.rust_name);
    assert!(handler.location.file.ends_with("place_module.rs"), "{}", handler.location);
    assert_eq!(handler.location.line, 14);
}
