//! The HTTP client of the commands that ask a server.

use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use url::Url;

const URL_DEFAULT: &str = "http://127.0.0.1:8080";

/// Why there is nothing from a server for now: asking again may help.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unavailable {
    /// It does not answer.
    #[error("{url} does not answer")]
    Unreachable {
        /// What was asked.
        url: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It answers that it cannot serve.
    #[error("{url} answered {said}")]
    NotServing {
        /// What was asked.
        url: String,
        /// What it says.
        said: String,
    },
}

/// Asks servers. Keeps its connections.
pub(super) struct Client(HyperClient<HttpsConnector<HttpConnector>, Empty<Bytes>>);

impl Client {
    /// A client that trusts what this machine trusts.
    pub(super) fn new() -> Self {
        // A machine without certificates can still ask servers without TLS.
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider supports the default versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        Self(HyperClient::builder(TokioExecutor::new()).build(connector))
    }

    /// The status and the body of the answer.
    pub(super) async fn get(&self, url: &Url) -> anyhow::Result<(u16, Bytes)> {
        let unreachable = |source: Box<dyn std::error::Error + Send + Sync>| Unavailable::Unreachable {
            url: url.to_string(),
            source,
        };
        let uri = url.as_str().parse().with_context(|| format!("reading the URL {url}"))?;
        let response = self.0.get(uri).await.map_err(|error| unreachable(error.into()))?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(|error| unreachable(error.into()))?;
        Ok((status, body.to_bytes()))
    }
}

/// The server to ask: by flag, else by environment, else the local one.
pub(super) fn base(flag: Option<Url>, variable: Option<String>) -> anyhow::Result<Url> {
    match (flag, variable) {
        (Some(url), _) => Ok(url),
        (None, Some(text)) => text.parse().with_context(|| format!("reading WALCLOCK_URL, {text:?}, as a URL")),
        (None, None) => Ok(URL_DEFAULT.parse().expect("the default is a URL")),
    }
}

/// The URL with one more segment in its path.
pub(super) fn join(base: &Url, segment: &str) -> Url {
    let mut url = base.clone();
    let path = format!("{}/{segment}", url.path().trim_end_matches('/'));
    url.set_path(&path);
    url
}
