//! The dispatcher as a `tower` service.

use std::time::Duration;

use inngest_failure::{handlers, on_failure};
use serde_json::json;
use tower::{Service, ServiceBuilder, ServiceExt};

use crate::{builder, failed};

#[on_failure(function = "served")]
async fn served() -> Result<u8, std::convert::Infallible> {
    Ok(7)
}

#[tokio::test]
async fn it_takes_layers_like_every_service() {
    let dispatcher = builder().register(handlers![served]).build().unwrap();
    let mut service = ServiceBuilder::new()
        .concurrency_limit(1)
        .timeout(Duration::from_secs(60))
        .service(dispatcher);
    for _ in 0..3 {
        let ready = service.ready().await.unwrap();
        let dispatch = ready.call(failed("shop-served", json!({}))).await.unwrap();
        assert_eq!(*dispatch.runs[0].result.as_ref().unwrap(), 7);
    }
}

#[test]
fn what_it_is_made_of_can_be_sent_and_shared() {
    fn check<T: Send + Sync + 'static>() {}
    check::<inngest_failure::Dispatcher>();
    check::<inngest_failure::FailureEvent>();
    check::<inngest_failure::Failure<String>>();
    check::<inngest_failure::HandlerError>();
    check::<inngest_failure::RunError>();
    check::<inngest_failure::BuildError>();
}
