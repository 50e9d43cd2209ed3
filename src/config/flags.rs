//! The table of settings as flags of a command.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::{Layer, SETTINGS, Setting};

/// The flags of a command that serves: all settings, and `--config`.
#[derive(Clone, Default)]
pub struct ServeFlags {
    /// The file named by `--config`.
    pub config: Option<PathBuf>,
    /// What the flags set.
    pub layer: Layer,
}

/// The flags of a command that only talks to the database.
#[derive(Clone, Default)]
pub struct DatabaseFlags {
    /// The file named by `--config`.
    pub config: Option<PathBuf>,
    /// What the flags set.
    pub layer: Layer,
}

fn is_for_database(setting: &Setting) -> bool {
    matches!(setting.key, "database-url" | "database-url-file" | "selector-column")
}

fn augment(command: Command, wanted: impl Fn(&Setting) -> bool) -> Command {
    let config = Arg::new("config").long("config").value_name("FILE").value_parser(clap::value_parser!(PathBuf));
    let config = config.help("A TOML file with settings, keys as the flags are named (or WALCLOCK_CONFIG)");
    let flags = SETTINGS.iter().filter(|setting| wanted(setting)).map(|setting| {
        let help = match setting.default {
            Some(default) => format!("{} [default: {default}]", setting.help),
            None => setting.help.to_owned(),
        };
        let arg = Arg::new(setting.key).long(setting.key).value_name(setting.placeholder).help(help);
        let arg = arg.action(ArgAction::Append);
        match setting.switch {
            true => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
            false => arg,
        }
    });
    command.arg(config).args(flags)
}

fn read(matches: &ArgMatches, wanted: impl Fn(&Setting) -> bool) -> (Option<PathBuf>, Layer) {
    let mut layer = Layer::default();
    for setting in SETTINGS.iter().filter(|setting| wanted(setting)) {
        if let Some(values) = matches.get_many::<String>(setting.key) {
            layer.add_flag(setting, values.cloned().collect());
        }
    }
    (matches.get_one("config").cloned(), layer)
}

impl FromArgMatches for ServeFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let (config, layer) = read(matches, |_| true);
        Ok(Self { config, layer })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for ServeFlags {
    fn augment_args(command: Command) -> Command {
        augment(command, |_| true)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for DatabaseFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let (config, layer) = read(matches, is_for_database);
        Ok(Self { config, layer })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for DatabaseFlags {
    fn augment_args(command: Command) -> Command {
        // Also behind the name of a subcommand, where there are any.
        augment(command, is_for_database).mut_args(|arg| arg.global(true).help_heading("Database"))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}
