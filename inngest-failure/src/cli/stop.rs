//! Stopping: Ctrl-C and SIGTERM.

use std::process;

use tokio::sync::watch;

use super::output::say;

/// Whether the program was told to stop.
#[derive(Clone)]
pub(super) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Listens from now on. A second Ctrl-C ends the program at once.
    pub(super) fn listen() -> Self {
        let (sender, receiver) = watch::channel(false);
        tokio::spawn(async move {
            signal().await;
            // Whoever listened may be done.
            let _ = sender.send(true);
            signal().await;
            say("stopped at once");
            process::exit(1);
        });
        Self(receiver)
    }

    pub(super) fn is_told(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is told.
    pub(super) async fn told(&mut self) {
        if self.0.wait_for(|is_told| *is_told).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(unix)]
async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        },
        Err(_) => drop(tokio::signal::ctrl_c().await),
    }
}

#[cfg(not(unix))]
async fn signal() {
    let _ = tokio::signal::ctrl_c().await;
}
