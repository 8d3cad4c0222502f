use std::time::Duration;

use inngest_failure::{Dispatcher, Failure, HandlerError, State, on_failure};

const APP: &str = "shop";

macro_rules! handler {
    (
        $(#[$meta:meta])*
        $vis:vis fn $name:ident($id:literal, $app:path, $label:expr, $retries:literal, $timeout:literal)
        -> $returned:ty $body:block
    ) => {
        $(#[$meta])*
        #[on_failure(
            function = $id, app = $app, name = $label, retries = $retries, timeout = $timeout,
            crate = inngest_failure
        )]
        $vis async fn $name() -> $returned $body
    };
}

handler! {
    /// Made by a macro.
    #[allow(dead_code)]
    pub(crate) fn undo("checkout", crate::APP, "undo", 5, "30s") -> Result<u32, HandlerError> {
        Ok(1)
    }
}

handler! {
    fn undo_refund("refund", APP, LABEL, 0, "1m") -> () {}
}

const LABEL: &str = "a label";

macro_rules! with_arguments {
    ($name:ident, $crate_path:path, $text:literal, $($pattern:pat_param => $ty:ty),*) => {
        #[doc = $text]
        #[on_failure(function = "ship", crate = $crate_path, app = $crate::APP)]
        fn $name($($pattern: $ty),*) {}
    };
}

with_arguments!(ship, ::inngest_failure, "Ship.", _ => Failure<u32>, State(_text) => State<&'static str>);

macro_rules! same_names {
    ($name:ident, $function:expr) => {
        #[on_failure(function = $function)]
        async fn $name(failure: Failure, State(text): State<&'static str>) {
            let _ = (failure, text);
        }
    };
}

same_names!(pack, "pack");

macro_rules! attribute {
    ($($args:tt)*) => {
        #[on_failure($($args)*)]
        async fn by_tokens() {}
    };
}

attribute!(function = "bill", cancelled);

macro_rules! item {
    ($item:item) => {
        #[on_failure(function = "label")]
        $item
    };
}

item!(
    async fn label() {}
);

fn main() {
    let dispatcher = Dispatcher::builder().app("shop").state("").build().unwrap();
    let handlers = dispatcher.handlers();
    let ids: Vec<_> = handlers.iter().map(|handler| handler.id.as_str()).collect();
    assert_eq!(
        ids,
        [
            "shop-bill-failure",
            "shop-checkout-failure",
            "shop-label-failure",
            "shop-pack-failure",
            "shop-refund-failure",
            "shop-ship-failure",
        ],
    );
    let undo = &handlers[1];
    assert_eq!((undo.name.as_str(), undo.description), ("undo", "Made by a macro."));
    assert_eq!((undo.retries, undo.timeout), (5, Some(Duration::from_secs(30))));
    assert_eq!(handlers[4].name, "a label");
    assert_eq!(handlers[5].description, "Ship.");
}
