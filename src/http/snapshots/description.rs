//! What this face's operation takes and answers, for the description of the API.

use std::collections::{BTreeMap, HashMap};

use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::openapi::{RefOr, Response};
use utoipa::{IntoParams, IntoResponses, ToSchema};

use super::error;
use crate::http::common::describe::{Column, accept_encoding, parameter, scopes, text};
use crate::http::common::refusal;

/// The rows of some scopes at one moment.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "snapshots are written piece by piece; this describes them")]
pub(super) struct Snapshot {
    /// What the snapshot sees, as PostgreSQL says it: the `snapshot` of the calls for changes that follow.
    snapshot_info: String,
    /// When it was taken.
    #[schema(format = DateTime)]
    timestamp: String,
    /// The tables that have such rows.
    tables: Vec<SnapshotTable>,
}

/// The rows of a table.
#[derive(ToSchema)]
#[expect(dead_code, reason = "snapshots are written piece by piece; this describes them")]
struct SnapshotTable {
    /// `schema.table`, quoted where SQL needs it.
    name: String,
    /// By column.
    rows: Vec<HashMap<String, Column>>,
}

/// The parameters of the call.
pub(super) struct Parameters;

impl IntoParams for Parameters {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let scopes = scopes("The scopes whose rows to tell; at least one must be named, under either name.");
        let indents = "Indents the JSON, whatever its value.";
        let pretty = parameter("pretty", ParameterIn::Query, indents, text().build());
        scopes.into_iter().chain([pretty, accept_encoding()]).collect()
    }
}

/// The errors.
pub(super) struct Refusals;

impl IntoResponses for Refusals {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        refusal::responses(error::KINDS)
    }
}
