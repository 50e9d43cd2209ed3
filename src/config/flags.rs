//! The table of settings as flags of a command.

use std::marker::PhantomData;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::{Layer, SETTINGS, Setting};

/// Which settings a command has flags for.
pub trait Choice: Clone + Default + 'static {
    /// Whether this one is among them.
    fn has(setting: &Setting) -> bool;
    /// How such a flag is shown.
    fn shown(arg: Arg) -> Arg;
}

/// All: for a command that serves.
#[derive(Clone, Default)]
pub struct All;

/// What is needed to reach the database: for a command that only talks to it.
#[derive(Clone, Default)]
pub struct Database;

/// Those of the database, and what the feed reads there: for a command that judges it.
#[derive(Clone, Default)]
pub struct Feed;

impl Choice for All {
    fn has(_: &Setting) -> bool {
        true
    }

    fn shown(arg: Arg) -> Arg {
        arg
    }
}

impl Choice for Database {
    fn has(setting: &Setting) -> bool {
        matches!(setting.key, "database-url" | "database-url-file")
    }

    fn shown(arg: Arg) -> Arg {
        // Also behind the name of a subcommand, where there are any.
        arg.global(true).help_heading("Database")
    }
}

impl Choice for Feed {
    fn has(setting: &Setting) -> bool {
        Database::has(setting) || matches!(setting.key, "publication" | "selector-column")
    }

    fn shown(arg: Arg) -> Arg {
        Database::shown(arg)
    }
}

/// The flags of a command for its settings, and `--config`.
#[derive(Clone, Default)]
pub struct SettingFlags<C> {
    /// The file named by `--config`.
    pub config: Option<PathBuf>,
    /// What the flags set.
    pub layer: Layer,
    choice: PhantomData<C>,
}

/// The flags of a command that serves.
pub type ServeFlags = SettingFlags<All>;
/// The flags of a command that only talks to the database.
pub type DatabaseFlags = SettingFlags<Database>;
/// The flags of a command that judges the database.
pub type DoctorFlags = SettingFlags<Feed>;

impl<C: Choice> FromArgMatches for SettingFlags<C> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut layer = Layer::default();
        for setting in SETTINGS.iter().filter(|setting| C::has(setting)) {
            if let Some(values) = matches.get_many::<String>(setting.key) {
                layer.add_flag(setting, values.cloned().collect());
            }
        }
        Ok(Self { config: matches.get_one("config").cloned(), layer, choice: PhantomData })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl<C: Choice> Args for SettingFlags<C> {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config").long("config").value_name("FILE").value_parser(clap::value_parser!(PathBuf));
        let config = config.help("A TOML file with settings, keys as the flags are named (or WALCLOCK_CONFIG)");
        let flags = SETTINGS.iter().filter(|setting| C::has(setting)).map(flag);
        command.args(std::iter::once(config).chain(flags).map(C::shown))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn flag(setting: &'static Setting) -> Arg {
    let help = match setting.default {
        Some(default) => format!("{} [default: {default}]", setting.help),
        None => setting.help.to_owned(),
    };
    let arg = Arg::new(setting.key).long(setting.key).value_name(setting.placeholder).help(help);
    let arg = arg.action(ArgAction::Append);
    match setting.switch {
        true => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
        // One that begins with a hyphen is bad by its own rule, of which the error tells.
        false => arg.allow_hyphen_values(true),
    }
}
