//! Puts the faces together: which calls are answered on which port, and behind which path.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;

use crate::domain::limits;
use crate::http::common::refusal::{NOT_FOUND, Refusal};
use crate::http::manage;
use crate::service::health::Health;

/// What a path that nobody answers is answered; a newcomer's first one is `/`.
const NOTHING_HERE: &str = "GET /openapi.json, behind the path prefix if there is one, tells what there is";

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
        let nothing = async || Refusal::new(NOT_FOUND, NOTHING_HERE);
        let guarded = |router: Router, paths| guarded(router.fallback(nothing), paths);
        match management_has_a_port {
            true => Self { main: guarded(calls, &[]), management: Some(guarded(management, &["/health", "/metrics"])) },
            false => Self { main: guarded(management.merge(calls), &["/health"]), management: None },
        }
    }
}
