use inngest_failure::{Dispatcher, State, handlers, on_failure};

fn main() {
    const REFUND: &str = "refund";

    #[derive(Clone)]
    struct Local;

    #[on_failure(function = "checkout")]
    async fn undo(State(_local): State<Local>) {}

    {
        #[on_failure(function = REFUND)]
        fn undo() {}

        let dispatcher =
            Dispatcher::builder().without_inventory().register(handlers![undo]).build().unwrap();
        assert_eq!(dispatcher.handlers()[0].id, "refund-failure");
    }

    let closure = || {
        #[on_failure(function = "ship")]
        async fn ship() {}
        handlers![ship]
    };
    let dispatcher = Dispatcher::builder()
        .without_inventory()
        .state(Local)
        .register(handlers![undo])
        .register(closure())
        .build()
        .unwrap();
    let ids: Vec<_> = dispatcher.handlers().iter().map(|handler| &handler.id).collect();
    assert_eq!(ids, ["checkout-failure", "ship-failure"]);
    assert_eq!(Dispatcher::builder().state(Local).build().unwrap().handlers().len(), 3);
}
