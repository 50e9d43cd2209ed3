//! Background work without state of its own: one driver for all of it.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Calls `tick` at once, and then every `interval`, a fifth more or less so that many processes spread out. What fails is
/// logged and tried again at the next time.
pub(super) async fn drive<F, E>(
    name: &'static str,
    interval: Duration,
    stop: CancellationToken,
    mut tick: impl FnMut() -> F,
) where
    F: Future<Output = Result<(), E>>,
    E: Into<anyhow::Error>,
{
    loop {
        if let Err(error) = tick().await {
            tracing::warn!(tick = name, "{:#}", error.into());
        }
        let pause = interval.mul_f64(0.8 + 0.4 * fastrand::f64());
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
    }
}
