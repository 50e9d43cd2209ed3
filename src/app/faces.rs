//! Puts the faces together: which calls are answered on which port, and behind which path.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::Uri;
use axum::middleware::from_fn_with_state;

use crate::domain::limits;
use crate::http::common::refusal::{NOT_FOUND, Refusal, shown};
use crate::http::manage;
use crate::service::health::Health;

/// What whoever calls a path that nobody answers is told; a newcomer's first one is `/`.
const WHERE_TO_LOOK: &str = "GET /openapi.json, behind the path prefix if there is one, tells what there is";

/// The routers of the two ports. There is none for the second where everything is on the first.
pub(super) struct Faces {
    pub(super) main: Router,
    pub(super) management: Option<Router>,
}

impl Faces {
    /// `calls` are all but the management calls.
    pub(super) fn new(
        calls: Router,
        management: Router,
        prefix: &str,
        management_has_a_port: bool,
        health: &Health,
    ) -> Self {
        let calls = match prefix {
            "" => calls,
            prefix => Router::new().nest(prefix, calls),
        };
        let guarded = |router: Router, paths| {
            let served = manage::Served { health: health.clone(), paths };
            let refuse = from_fn_with_state(served, manage::refuse_when_down);
            router.layer(DefaultBodyLimit::max(limits::REQUEST_BYTES_MAX)).layer(refuse)
        };
        let nothing = async |uri: Uri| {
            Refusal::new(NOT_FOUND, format!("there is nothing at {}: {WHERE_TO_LOOK}", shown(uri.path())))
        };
        let guarded = |router: Router, paths| guarded(router.fallback(nothing), paths);
        match management_has_a_port {
            true => Self { main: guarded(calls, &[]), management: Some(guarded(management, &["/health", "/metrics"])) },
            false => Self { main: guarded(management.merge(calls), &["/health"]), management: None },
        }
    }
}
