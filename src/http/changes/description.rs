//! What this face's operation takes and answers, for the description of the API.

use std::collections::{BTreeMap, HashMap};

use serde_json::json;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::openapi::{RefOr, Response};
use utoipa::{IntoParams, IntoResponses, ToSchema};

use super::error;
use crate::domain::limits;
use crate::http::common::describe::{Column, accept_encoding, parameter, scopes, text, whole_number};
use crate::http::common::refusal;

/// A sequence: timeline where it is above 1, LSN and index, in hex.
const SEQUENCE: &str = "^([0-9a-fA-F]+\\.){2,3}[0-9a-fA-F]+$";

/// A page of changes.
#[derive(ToSchema)]
#[schema(as = ChangePage)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "pages come rendered from the feed; this describes them")]
pub(super) struct Page {
    /// The oldest sequence that the server still has, whatever its scope; `0.0.0` where it never had any.
    first_sequence: String,
    /// Where to follow on: the `since` of the next call.
    last_sequence: String,
    /// In the order of their commits.
    changes: Vec<Change>,
}

/// A change of one row, or a TRUNCATE.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "changes come rendered from the feed; this describes them")]
struct Change {
    /// 1 insert, 2 update, 3 delete, 4 truncate.
    #[schema(minimum = 1, maximum = 4)]
    operation: u8,
    /// `schema.table`, quoted where SQL needs it; a partition goes under its root's name.
    table: String,
    /// Where the change stands. Not comparable as a text.
    sequence: String,
    /// The LSN of the commit.
    #[schema(format = "uint64")]
    commit_sequence: u64,
    /// The LSN of the change itself.
    #[schema(format = "uint64")]
    change_sequence: u64,
    /// Which change of its transaction it is, counted from 0 over all scopes.
    #[schema(format = "uint32")]
    commit_index: u32,
    /// The transaction's id, with its epoch.
    #[schema(format = "uint64")]
    txid: u64,
    /// When it was committed, in seconds since 1970.
    timestamp: i64,
    /// The row afterwards, by column; not after a delete or a truncate.
    #[schema(nullable = false)]
    new_row: Option<HashMap<String, Column>>,
    /// The row before, by column, as far as the table's replica identity tells it.
    #[schema(nullable = false)]
    old_row: Option<HashMap<String, Column>>,
    /// Columns that the update left as they were and that PostgreSQL did not send.
    #[schema(nullable = false)]
    unchanged_columns: Option<Vec<String>>,
}

/// The parameters and headers of the call.
pub(super) struct Parameters;

impl IntoParams for Parameters {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let query = |name: &str, description: &str, schema| parameter(name, ParameterIn::Query, description, schema);
        let header = |name: &str, description: &str, schema| parameter(name, ParameterIn::Header, description, schema);
        let limit =
            whole_number().maximum(Some(limits::CHANGES_LIMIT_MAX)).default(Some(json!(limits::CHANGES_LIMIT_DEFAULT)));
        let most = format!(
            "How many changes to answer with at most. An answer also ends at {} MiB of changes, or earlier while many large \
             ones are being sent: one with fewer need not be the last, and `lastSequence` says where to follow on. Of an event stream it is the size of its steps, from 1 on.",
            limits::CHANGES_BYTES_MAX >> 20,
        );
        let sequence = || text().pattern(Some(SEQUENCE)).build();
        let snapshot =
            text().pattern(Some("^[0-9]+:[0-9]+:([0-9]+(,[0-9]+)*,?)?$")).examples([json!("723:726:723,724")]);
        let mut parameters = scopes(
            "The scopes to read: a change of any of them is told. None given: the rows that have no scope, never all rows.",
        )
        .to_vec();
        parameters.extend([
            query("since", "The sequence behind which to read; without it, from the oldest.", sequence()),
            query("limit", &most, limit.build()),
            query(
                "block",
                "How many seconds to wait for a change where there is none yet; more than the server allows is shortened.",
                whole_number().default(Some(json!(0))).build(),
            ),
            query(
                "snapshot",
                "Leaves out what this snapshot shows: the `snapshotInfo` of a snapshot. Whether it is too old is asked only \
                 without `since`.",
                snapshot.build(),
            ),
            query("pretty", "Indents the JSON, whatever its value.", text().build()),
            header("Last-Event-ID", "The position of an event stream; it counts before `since`.", sequence()),
            header("If-None-Match", "The ETag of an answer that the caller has.", text().build()),
            accept_encoding(),
        ]);
        parameters
    }
}

/// The errors.
pub(super) struct Refusals;

impl IntoResponses for Refusals {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        refusal::responses(error::KINDS)
    }
}
