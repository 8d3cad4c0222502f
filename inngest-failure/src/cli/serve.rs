//! `serve`.

use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::net::TcpListener;

use super::{Fatal, Outcome, args, output::say, stop::Stop};
use crate::{dispatcher::DispatcherBuilder, serve::Endpoint};

pub(super) async fn run(builder: DispatcherBuilder, args: &args::Serve) -> Result<Outcome, Fatal> {
    let dispatcher = builder.build()?;
    let app = match (&args.app, dispatcher.app()) {
        (Some(app), _) => app.clone(),
        (None, Some(app)) => format!("{app}-failures"),
        (None, None) => {
            return Err(Fatal::new(
                "the endpoint needs an app id of its own; give one with `--app`, such as `--app shop-failures`",
            ));
        }
    };
    let service = TowerToHyperService::new(Endpoint::builder(dispatcher, &app).build()?);
    let listener = TcpListener::bind(args.listen).await.map_err(|error| {
        Fatal::new(format!(
            "can't listen on {}: {error}; give another address with `--listen`",
            args.listen
        ))
    })?;
    say(&format!("app `{app}` at http://{}", listener.local_addr()?));

    let mut stop = Stop::listen();
    let connections = GracefulShutdown::new();
    loop {
        let stream = tokio::select! {
            () = stop.told() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Too many files are open, say: the next one may be taken.
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new()) // for hyper's limit on how long a request's head may take
            .serve_connection(TokioIo::new(stream), service.clone());
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection broke");
            }
        });
    }
    drop(listener);
    match tokio::time::timeout(args.grace, connections.shutdown()).await {
        Ok(()) => Ok(Outcome::Well),
        Err(_) => {
            say(&format!(
                "some calls had not ended after {}",
                humantime::format_duration(args.grace)
            ));
            Ok(Outcome::Failed)
        }
    }
}
