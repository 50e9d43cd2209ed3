//! How to reach PostgreSQL: settings from a URL or libpq's words, and TLS. For the replication stream and the queries
//! alike. The password never leaves this module in text.

use std::sync::Arc;

use tokio_postgres_rustls::MakeRustlsConnect;

/// Why the settings are no good.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is neither a URL nor libpq's `key=value` words.
    #[error("the database URL cannot be read")]
    Parse(#[source] tokio_postgres::Error),
}

/// Where and as whom to connect.
#[derive(Clone)]
pub struct Settings {
    config: tokio_postgres::Config,
}

impl Settings {
    /// Reads `postgres://…` or `host=… user=…`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Ok(Self { config: text.parse().map_err(Error::Parse)? })
    }

    /// The same, as the driver wants it.
    pub fn config(&self) -> &tokio_postgres::Config {
        &self.config
    }

    /// What makes TLS connections; used only where the settings ask for TLS.
    pub fn connector(&self) -> MakeRustlsConnect {
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider supports the default versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        MakeRustlsConnect::new(config)
    }
}
