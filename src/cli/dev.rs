//! `walclock dev`.

use std::path::PathBuf;

use crate::app::dev;

/// The flags of this command.
#[derive(clap::Args)]
pub(super) struct Flags {
    /// The port to listen on, on 127.0.0.1 [default: 8080, or the next one that is free].
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Where everything lives [default: walclock/dev in your data folder; /var/lib/walclock/dev for root].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Use a temporary folder, and remove it at the end.
    #[arg(long, conflicts_with = "data_dir")]
    ephemeral: bool,
}

/// Runs everything until a signal ends it.
pub(super) async fn run(flags: Flags) -> anyhow::Result<()> {
    let place = match (flags.ephemeral, flags.data_dir) {
        (true, _) => dev::Place::Ephemeral,
        (false, Some(path)) => dev::Place::Folder(path),
        (false, None) => dev::Place::Default,
    };
    dev::run(dev::Config { port: flags.port, place }, super::output::line).await
}
