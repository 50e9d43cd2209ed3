//! `walclock serve`.

use crate::app;
use crate::config::{ServeFlags, Settings};

/// Serves until a signal ends it.
pub(super) async fn run(flags: ServeFlags) -> anyhow::Result<()> {
    let settings = Settings::load(flags.layer, flags.config.as_deref())?;
    app::serve(settings).await
}
