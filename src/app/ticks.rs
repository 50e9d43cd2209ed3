//! Background work without state of its own: one driver for all of it.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::parts::Part;

/// What failed is tried again at the latest after this.
const RETRY_INTERVAL: Duration = Duration::from_secs(30);

/// Calls `tick` at once, and then every `interval`, a fifth more or less so that many processes spread out. What fails is
/// tried again, and logged once until the reason changes or it works.
pub(super) async fn drive<F, E>(part: Part, interval: Duration, stop: CancellationToken, mut tick: impl FnMut() -> F)
where
    F: Future<Output = Result<(), E>>,
    E: Into<anyhow::Error>,
{
    let mut failing: Option<String> = None;
    loop {
        let pause = match tick().await {
            Ok(()) => {
                if failing.take().is_some() {
                    tracing::info!(tick = part.name(), "works again");
                }
                interval
            }
            Err(error) => {
                let reason = format!("{:#}", error.into());
                if failing.as_ref() != Some(&reason) {
                    tracing::warn!(tick = part.name(), "{reason}");
                    failing = Some(reason);
                }
                interval.min(RETRY_INTERVAL)
            }
        };
        let pause = pause.mul_f64(0.8 + 0.4 * fastrand::f64());
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
    }
}
