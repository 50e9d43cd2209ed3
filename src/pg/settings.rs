//! The settings of a connection to PostgreSQL: a URL or libpq's words, in and out.

use std::fmt;
use std::time::Duration;

use rustls::ClientConfig;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::Error;
use super::tls::{self, Roots, TlsMode};
use super::words::Words;

/// How long one connection attempt may take where the settings do not say: a host that is gone does not answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may be idle before the kernel asks whether the other side is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// How long sent bytes may stay unconfirmed before the kernel gives the connection up: it notices a peer that vanished while
/// a question to it is under way, which it does not look after as it does after an idle connection.
const UNCONFIRMED_MAX: Duration = Duration::from_secs(30);

/// Every key that may stand in the settings, and what its value may be.
const KEYS: [(&str, &str); 20] = [
    ("application_name", "any text"),
    ("channel_binding", "disable, prefer or require"),
    ("connect_timeout", "a whole number of seconds"),
    ("dbname", "any text"),
    ("host", "a host name, an address or the folder of a socket; several with commas between them"),
    ("hostaddr", "an IP address; several with commas between them"),
    ("keepalives", "0 or 1"),
    ("keepalives_idle", "a whole number of seconds"),
    ("keepalives_interval", "a whole number of seconds"),
    ("keepalives_retries", "a whole number"),
    ("load_balance_hosts", "disable or random"),
    ("options", "any text"),
    ("password", "any text"),
    ("port", "a number from 1 to 65535; several with commas between them"),
    ("sslmode", TlsMode::ALLOWED),
    ("sslnegotiation", "postgres or direct"),
    ("sslrootcert", "a file with PEM certificates, or system"),
    ("target_session_attrs", "any, read-write or read-only"),
    ("tcp_user_timeout", "a whole number of seconds"),
    ("user", "any text"),
];

/// Where and as whom to connect.
#[derive(Clone)]
pub struct Settings {
    config: tokio_postgres::Config,
    mode: TlsMode,
    roots: Roots,
}

impl Settings {
    /// Reads `postgres://…` or `host=… user=…`. Host and user must be there; the database defaults to the user's name.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut words = Words::parse(text)?;
        check(&words)?;
        let (mode, roots) = take_tls(&mut words)?;
        let mut config: tokio_postgres::Config = words.text().parse().map_err(Error::Parse)?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(Error::Missing { key: "host", hint: "name a host, or the folder of the server's socket" });
        }
        let user = config.get_user().unwrap_or_default().to_owned();
        if user.is_empty() {
            return Err(Error::Missing { key: "user", hint: "write postgres://user@host/database, or user=…" });
        }
        if config.get_dbname().is_none() {
            config.dbname(user);
        }
        let said = |key: &str| words.list.iter().any(|word| word.key == key);
        if !said("connect_timeout") {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        if !said("keepalives_idle") {
            config.keepalives_idle(KEEPALIVE_IDLE).keepalives_interval(KEEPALIVE_IDLE / 3).keepalives_retries(3);
        }
        if !said("tcp_user_timeout") {
            config.tcp_user_timeout(UNCONFIRMED_MAX);
        }
        config.ssl_mode(match mode {
            TlsMode::Disable => SslMode::Disable,
            TlsMode::Prefer => SslMode::Prefer,
            TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => SslMode::Require,
        });
        Ok(Self { config, mode, roots })
    }

    /// The same under another `application_name`, which PostgreSQL shows in `pg_stat_activity`.
    pub fn with_application_name(mut self, name: &str) -> Self {
        self.config.application_name(name);
        self
    }

    /// The same, as the driver wants it.
    pub fn config(&self) -> &tokio_postgres::Config {
        &self.config
    }

    /// What TLS is to guarantee.
    pub fn tls_mode(&self) -> TlsMode {
        self.mode
    }

    /// What makes TLS connections of this mode. Fails where the trusted certificates cannot be read.
    pub fn connector(&self) -> Result<MakeRustlsConnect, Error> {
        Ok(MakeRustlsConnect::new(self.client_config()?))
    }

    /// The same for who speaks TLS on a socket of its own.
    pub fn client_config(&self) -> Result<ClientConfig, Error> {
        tls::client_config(self.mode, &self.roots)
    }

    /// One setting for each host, in the order given: who needs two connections to the same server tries one by one.
    pub fn each_host(&self) -> Vec<Self> {
        let (hosts, addresses, ports) = (self.config.get_hosts(), self.config.get_hostaddrs(), self.config.get_ports());
        let count = hosts.len().max(addresses.len());
        let port_at = |at: usize| ports.get(at).or_else(|| ports.first()).copied().unwrap_or(5432);
        (0..count)
            .map(|at| {
                let mut one = without_hosts(&self.config);
                match hosts.get(at) {
                    Some(Host::Tcp(name)) => _ = one.host(name),
                    Some(Host::Unix(folder)) => _ = one.host_path(folder),
                    None => {}
                }
                if let Some(address) = addresses.get(at) {
                    one.hostaddr(*address);
                }
                one.port(port_at(at));
                Self { config: one, mode: self.mode, roots: self.roots.clone() }
            })
            .collect()
    }
}

/// Every key is known and every value is one of its kind.
fn check(words: &Words) -> Result<(), Error> {
    for word in &words.list {
        let Some((_, allowed)) = KEYS.iter().find(|(key, _)| *key == word.key) else {
            let known = KEYS.map(|(key, _)| key).join(", ");
            return Err(Error::Key { key: word.key.clone(), known });
        };
        // The modes that the driver does not know are read by `take_tls`.
        let ours = matches!(word.key.as_str(), "sslmode" | "sslrootcert");
        if !ours && word.quoted().parse::<tokio_postgres::Config>().is_err() {
            return Err(Error::Value { key: word.key.clone(), value: word.value.clone(), allowed });
        }
    }
    Ok(())
}

fn take_tls(words: &mut Words) -> Result<(TlsMode, Roots), Error> {
    let roots = match words.take("sslrootcert").as_deref() {
        None | Some("") => Roots::Unsaid,
        Some("system") => Roots::System,
        Some(path) => Roots::File(path.into()),
    };
    let refuse = |value: String, allowed: &'static str| Error::Value { key: "sslmode".to_owned(), value, allowed };
    let mode = match (words.take("sslmode"), &roots) {
        // As in libpq: whoever trusts all the world's authorities must compare names.
        (None, Roots::System) => TlsMode::VerifyFull,
        (None, Roots::Unsaid | Roots::File(_)) => TlsMode::Prefer,
        (Some(text), roots) => {
            let mode = TlsMode::parse(&text).ok_or_else(|| refuse(text, TlsMode::ALLOWED))?;
            if *roots == Roots::System && mode != TlsMode::VerifyFull {
                return Err(refuse(mode.to_string(), "verify-full, since sslrootcert=system is given"));
            }
            mode
        }
    };
    Ok((mode, roots))
}

/// The driver cannot drop the hosts of its configuration, so all else is copied.
fn without_hosts(from: &tokio_postgres::Config) -> tokio_postgres::Config {
    let mut to = tokio_postgres::Config::new();
    if let Some(user) = from.get_user() {
        to.user(user);
    }
    if let Some(password) = from.get_password() {
        to.password(password);
    }
    if let Some(dbname) = from.get_dbname() {
        to.dbname(dbname);
    }
    if let Some(options) = from.get_options() {
        to.options(options);
    }
    if let Some(name) = from.get_application_name() {
        to.application_name(name);
    }
    if let Some(timeout) = from.get_connect_timeout() {
        to.connect_timeout(*timeout);
    }
    if let Some(timeout) = from.get_tcp_user_timeout() {
        to.tcp_user_timeout(*timeout);
    }
    if let Some(interval) = from.get_keepalives_interval() {
        to.keepalives_interval(interval);
    }
    if let Some(retries) = from.get_keepalives_retries() {
        to.keepalives_retries(retries);
    }
    to.ssl_mode(from.get_ssl_mode())
        .ssl_negotiation(from.get_ssl_negotiation())
        .keepalives(from.get_keepalives())
        .keepalives_idle(from.get_keepalives_idle())
        .target_session_attrs(from.get_target_session_attrs())
        .channel_binding(from.get_channel_binding());
    to
}

impl fmt::Display for Settings {
    /// As a URL without what is secret, `postgres://user:***@host:5432/database?sslmode=prefer`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = &self.config;
        let mask = if config.get_password().is_some() { ":***" } else { "" };
        write!(f, "postgres://{}{mask}@", config.get_user().unwrap_or_default())?;
        for (at, one) in self.each_host().iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            let port = one.config.get_ports().first().copied().unwrap_or(5432);
            match (one.config.get_hosts().first(), one.config.get_hostaddrs().first()) {
                (Some(Host::Tcp(name)), _) if name.contains(':') => write!(f, "{comma}[{name}]:{port}")?,
                (Some(Host::Tcp(name)), _) => write!(f, "{comma}{name}:{port}")?,
                (Some(Host::Unix(folder)), _) => write!(f, "{comma}{}:{port}", folder.display())?,
                (None, Some(address)) => write!(f, "{comma}{address}:{port}")?,
                (None, None) => {}
            }
        }
        write!(f, "/{}?sslmode={}", config.get_dbname().unwrap_or_default(), self.mode)
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Settings({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_give_the_same() {
        for text in [
            "postgres://u%20x:p%40%3F@h:1234/d%2Fb?sslmode=verify-full&sslrootcert=%2Fa%20b",
            r"host=h port=1234 user='u x' password='p@?' dbname=d/b sslmode=verify-full sslrootcert='/a b'",
        ] {
            let settings = Settings::parse(text).expect(text);
            assert_eq!(settings.config.get_user(), Some("u x"));
            assert_eq!(settings.config.get_password(), Some(b"p@?".as_slice()));
            assert_eq!(settings.config.get_dbname(), Some("d/b"));
            assert_eq!(settings.config.get_ports(), [1234]);
            assert_eq!(settings.config.get_ssl_mode(), SslMode::Require);
            assert_eq!(settings.mode, TlsMode::VerifyFull);
            assert_eq!(settings.roots, Roots::File("/a b".into()));
        }
    }

    #[test]
    fn defaults() {
        let settings = Settings::parse("postgres://u@h").expect("complete");
        assert_eq!(settings.config.get_dbname(), Some("u"));
        assert_eq!(settings.mode, TlsMode::Prefer);
        assert_eq!(settings.config.get_connect_timeout(), Some(&CONNECT_TIMEOUT));
        // Each connection is made to one host of them.
        let each = settings.each_host();
        assert_eq!(each[0].config.get_tcp_user_timeout(), Some(&UNCONFIRMED_MAX));
        let own = Settings::parse("postgres://u@h?tcp_user_timeout=5").expect("complete");
        assert_eq!(own.config.get_tcp_user_timeout(), Some(&Duration::from_secs(5)));
        let system = Settings::parse("postgres://u@h?sslrootcert=system").expect("complete");
        assert_eq!(system.mode, TlsMode::VerifyFull);
    }

    #[test]
    fn a_bad_value_is_named_with_what_is_allowed() {
        for (text, parts) in [
            ("postgres://u@h?sslmode=on", vec!["sslmode=on", "verify-full"]),
            ("postgres://u@h?sslmode=require&sslrootcert=system", vec!["sslmode=require", "verify-full"]),
            ("host=h user=u port=70000", vec!["port=70000", "65535"]),
            ("host=h user=u connect_timeout=soon", vec!["connect_timeout=soon", "seconds"]),
            ("host=h user=u sslcert=x", vec!["unknown key sslcert", "sslrootcert"]),
            ("user=u", vec!["host is missing"]),
            ("postgres://h/d", vec!["user is missing"]),
        ] {
            let error = Settings::parse(text).expect_err(text).to_string();
            for part in parts {
                assert!(error.contains(part), "{text}: {error}");
            }
        }
    }

    #[test]
    fn the_password_is_never_shown() {
        let settings = Settings::parse("postgres://u:secret@h:1,[::1]:2/d").expect("complete");
        assert_eq!(settings.to_string(), "postgres://u:***@h:1,[::1]:2/d?sslmode=prefer");
        assert!(!format!("{settings:?} {:?}", settings.config).contains("secret"));
    }

    #[test]
    fn each_host_has_its_port_and_all_else() {
        let settings = Settings::parse("host=a,/run port=1,2 user=u password=p sslmode=disable").expect("complete");
        let each = settings.with_application_name("walclock").each_host();
        let shown: Vec<_> = each.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["postgres://u:***@a:1/u?sslmode=disable", "postgres://u:***@/run:2/u?sslmode=disable"]);
        assert!(each.iter().all(|one| one.config.get_application_name() == Some("walclock")));
    }
}
