//! Settings: flags, then environment, then a TOML file. The only place that reads the environment.
