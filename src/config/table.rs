//! The table of all settings: one line each, for flags, variables, the file and the documentation.

/// A setting: `--key` as a flag, `WALCLOCK_KEY` in the environment, `key = …` in the file.
#[derive(Debug)]
pub struct Setting {
    /// Its name, words joined by hyphens.
    pub key: &'static str,
    /// What stands for its value in the help.
    pub placeholder: &'static str,
    /// Its value where none is given, as text.
    pub default: Option<&'static str>,
    /// Whether it can be given several times (flag), as a list (file), or with commas (anywhere).
    pub many: bool,
    /// Whether it is true or false; the bare flag says true.
    pub switch: bool,
    /// Whether its value is never shown.
    pub secret: bool,
    /// What it does.
    pub help: &'static str,
    /// What it may be.
    pub allowed: &'static str,
}

impl Setting {
    /// The variable that sets it.
    pub fn variable(&self) -> String {
        format!("WALCLOCK_{}", self.key.replace('-', "_").to_ascii_uppercase())
    }

    /// The setting of that name.
    pub fn find(key: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.key == key)
    }
}

/// A setting with one value and a default; the others are written in full by way of `..`.
const ONE: Setting = Setting {
    key: "",
    placeholder: "",
    default: None,
    many: false,
    switch: false,
    secret: false,
    help: "",
    allowed: "",
};

/// Every setting of the server.
pub static SETTINGS: &[Setting] = &[
    Setting {
        key: "database-url",
        placeholder: "URL",
        secret: true,
        help: "The PostgreSQL database; DATABASE_URL is read too",
        allowed: "postgres://user:password@host:port/database?sslmode=… or libpq's key=value words",
        ..ONE
    },
    Setting {
        key: "database-url-file",
        placeholder: "FILE",
        help: "A file that holds the URL of the database, so that no password stands in flags or environment",
        allowed: "the path of a readable file",
        ..ONE
    },
    Setting {
        key: "roles",
        placeholder: "ROLE,…",
        default: Some("changeserver,dispatcher,api"),
        many: true,
        help: "What this process does",
        allowed: "one or more of changeserver, dispatcher, api",
        ..ONE
    },
    Setting {
        key: "bind",
        placeholder: "ADDRESS",
        default: Some("127.0.0.1"),
        help: "The address to listen on; nothing here asks callers who they are, so open it to trusted networks only",
        allowed: "an IP address, such as 127.0.0.1, 0.0.0.0 or ::",
        ..ONE
    },
    Setting {
        key: "port",
        placeholder: "PORT",
        default: Some("8080"),
        help: "The port to listen on; 0 takes a free one",
        allowed: "a whole number from 0 to 65535",
        ..ONE
    },
    Setting {
        key: "management-port",
        placeholder: "PORT",
        help: "Moves /health, /ready, /markdown and /metrics to a port of their own",
        allowed: "a whole number from 0 to 65535",
        ..ONE
    },
    Setting {
        key: "path-prefix",
        placeholder: "PATH",
        default: Some("/"),
        help: "Puts all but the management calls behind this path",
        allowed: "a path that begins with /, of the characters 0-9 A-Z a-z _ . / -",
        ..ONE
    },
    Setting {
        key: "connections-max",
        placeholder: "COUNT",
        default: Some("50000"),
        help: "Connections held open at once; one more is answered 503, but for /health and /ready",
        allowed: "a whole number from 1 to 1000000",
        ..ONE
    },
    Setting {
        key: "data-dir",
        placeholder: "DIR",
        help: "Where the journal of the changeserver lives [default: walclock/serve in the user's data folder]",
        allowed: "the path of a folder; it is made if it is missing",
        ..ONE
    },
    Setting {
        key: "slot",
        placeholder: "NAME",
        default: Some("walclock"),
        help: "The replication slot of the changeserver; each changeserver needs its own",
        allowed: "a name of 1 to 63 letters, digits, _ and -, lower-cased, - becoming _ and the rest dropped",
        ..ONE
    },
    Setting {
        key: "publication",
        placeholder: "NAME",
        default: Some("walclock_timers,walclock"),
        many: true,
        help: "The publications that the slot reads",
        allowed: "names of 1 to 63 of the characters a-z 0-9 _",
        ..ONE
    },
    Setting {
        key: "selector-column",
        placeholder: "NAME",
        default: Some("_change_selector,_apid_scope"),
        many: true,
        help: "The columns that may hold a row's scope, in order of preference",
        allowed: "column names of 1 to 63 bytes",
        ..ONE
    },
    Setting {
        key: "max-age",
        placeholder: "SPAN",
        default: Some("7d"),
        help: "How long the journal keeps a change",
        allowed: "a span of at least 1s, such as 7d, 12h or 1h30m",
        ..ONE
    },
    Setting {
        key: "max-size",
        placeholder: "SIZE",
        default: Some("10GiB"),
        help: "How large the journal may grow before the oldest changes go",
        allowed: "a size of at least 1MiB, such as 512MiB or 10GiB",
        ..ONE
    },
    Setting {
        key: "block-max",
        placeholder: "SPAN",
        default: Some("300s"),
        help: "The longest wait of a reader; a longer `block` is shortened to it",
        allowed: "a span from 0s to 1h, such as 300s",
        ..ONE
    },
    Setting {
        key: "changes-url",
        placeholder: "URL",
        help: "The changeserver that the dispatcher follows, where this process is not one itself",
        allowed: "an http or https URL, such as http://changes.internal:8080",
        ..ONE
    },
    Setting {
        key: "callback-allow",
        placeholder: "CIDR",
        many: true,
        help: "Private address ranges that callbacks may reach; none are open by default",
        allowed: "address ranges such as 10.1.0.0/16 or fd00::/8, or single addresses",
        ..ONE
    },
    Setting {
        key: "callbacks-max",
        placeholder: "COUNT",
        default: Some("16384"),
        help: "Timers claimed and callbacks under way at once",
        allowed: "a whole number from 1 to 100000",
        ..ONE
    },
    Setting {
        key: "callbacks-per-host-max",
        placeholder: "COUNT",
        default: Some("1024"),
        help: "Callbacks under way at once to one host: a scheme, name and port",
        allowed: "a whole number from 1 to 100000",
        ..ONE
    },
    Setting {
        key: "callbacks-per-host-rate-max",
        placeholder: "COUNT",
        help: "Callbacks a second to one host, from each process; any number by default",
        allowed: "a whole number from 1 to 1000000",
        ..ONE
    },
    Setting {
        key: "callbacks-per-host-failures",
        placeholder: "COUNT",
        default: Some("20"),
        help: "Callbacks of one namespace to one host that fail in a row, by 5xx or without an answer, until it is spared for a while; 0 never spares",
        allowed: "a whole number from 0 to 1000000",
        ..ONE
    },
    Setting {
        key: "auto-create-namespaces",
        placeholder: "BOOL",
        switch: true,
        default: Some("false"),
        help: "Whether creating a timer over HTTP makes its namespace; otherwise an unknown one is refused",
        allowed: "true or false",
        ..ONE
    },
    Setting {
        key: "lease-ttl",
        placeholder: "SPAN",
        default: Some("10s"),
        help: "How long a dispatcher's lease of a shard lasts; others take over so long after its death",
        allowed: "a span from 1s to 10m, such as 10s",
        ..ONE
    },
    Setting {
        key: "clock-age-max",
        placeholder: "SPAN",
        default: Some("30s"),
        help: "How long ago the database may have told its time for timers to be fired by it",
        allowed: "a span from 2s to 1h, such as 30s",
        ..ONE
    },
    Setting {
        key: "clock-error-max",
        placeholder: "SPAN",
        default: Some("500ms"),
        help: "How wrong the reckoning of the database's time may be for timers to be fired by it",
        allowed: "a span from 10ms to 1m, such as 500ms",
        ..ONE
    },
    Setting {
        key: "clock-offset-max",
        placeholder: "SPAN",
        default: Some("1d"),
        help: "How far the clocks of the database and of this machine may be apart for timers to be fired",
        allowed: "a span of at least 1s, such as 1d",
        ..ONE
    },
    Setting {
        key: "retention",
        placeholder: "SPAN",
        default: Some("7d"),
        help: "How long finished runs stay readable",
        allowed: "a span of at least 1d, such as 7d",
        ..ONE
    },
    Setting {
        key: "database-connections",
        placeholder: "COUNT",
        default: Some("16"),
        help: "Connections to PostgreSQL for queries, at most",
        allowed: "a whole number from 2 to 1000",
        ..ONE
    },
    Setting {
        key: "drain-max",
        placeholder: "SPAN",
        default: Some("30s"),
        help: "How long a stopping process waits for callbacks and answers under way",
        allowed: "a span from 0s to 1h, such as 30s",
        ..ONE
    },
];
