//! Words that the descriptions of several faces share. They say what is there, and change nothing of it.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::json;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn, ParameterStyle};
use utoipa::openapi::schema::{ArrayBuilder, KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::openapi::{Content, RefOr, Required, ResponseBuilder};
use utoipa::{PartialSchema, ToSchema};

use crate::domain::limits;

/// A body that is no text.
#[derive(Clone, Copy, Debug)]
pub struct Binary;

impl PartialSchema for Binary {
    fn schema() -> RefOr<Schema> {
        text().format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary))).into()
    }
}

impl ToSchema for Binary {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Binary")
    }
}

/// A column of a row.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "rows come rendered from the feed; this describes them")]
pub struct Column {
    /// The value as PostgreSQL prints it; bool is `true` or `false`, bytea is hex behind `\x`. Null is NULL.
    #[schema(required)]
    value: Option<String>,
    /// The oid of the column's type.
    #[schema(format = "uint32")]
    r#type: u32,
}

/// Why the process does not serve.
#[derive(Debug, Serialize, ToSchema)]
pub struct NotServing<'a> {
    /// What kind of no it is.
    pub status: NotServingStatus,
    /// Why.
    pub reason: &'a str,
}

/// What kind of no it is.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub enum NotServingStatus {
    /// A restart may help.
    Unhealthy,
    /// Ask another server, or again later.
    NotReady,
}

/// The description of the answer of a process that does not serve: as text, and as JSON, like the refusals of a face where
/// it has such with the same status.
pub fn not_serving(description: &str, others: Option<RefOr<Schema>>) -> ResponseBuilder {
    let own = reference::<NotServing<'_>>();
    let json = match others {
        None => own,
        Some(others) => utoipa::openapi::schema::OneOfBuilder::new().item(others).item(own).into(),
    };
    ResponseBuilder::new()
        .description(description)
        .content("application/json", Content::new(Some(json)))
        .content("text/plain", Content::new(Some(text().build())))
        .header("Cache-Control", header("`no-store`"))
}

/// The description of the answer to another method.
pub fn method_not_allowed(schema: RefOr<Schema>) -> ResponseBuilder {
    ResponseBuilder::new()
        .description("Another method than those of this path.")
        .header("Allow", header("The methods that there are."))
        .content("application/json", Content::new(Some(schema)))
}

/// A refusal of this schema, whose field `field` has one of these words.
pub fn coded<T: ToSchema>(field: &str, codes: &[&str]) -> RefOr<Schema> {
    let words = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(codes.iter().copied()));
    let narrowed = ObjectBuilder::new().property(field, words);
    utoipa::openapi::schema::AllOfBuilder::new().item(reference::<T>()).item(narrowed).into()
}

/// A reference to a schema.
pub fn reference<T: ToSchema>() -> RefOr<Schema> {
    RefOr::Ref(utoipa::openapi::Ref::from_schema_name(T::name()))
}

/// A header of an answer.
pub fn header(description: &str) -> Header {
    HeaderBuilder::new().schema(Some(text())).description(Some(description)).build()
}

/// The schema of a text.
pub fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

/// The schema of a whole number of at least 0.
pub fn whole_number() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0))
}

/// A parameter that may be left out.
pub fn parameter(name: &str, place: ParameterIn, description: &str, schema: impl Into<RefOr<Schema>>) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(schema))
        .build()
}

/// The header that asks for a compressed body.
pub fn accept_encoding() -> Parameter {
    let description = "How the body may be compressed: `zstd`, which is preferred where both are as welcome, or `gzip`. A body that is \
        small, an error and an event stream are sent as they are, and so is any body while too many others are compressed.";
    parameter("Accept-Encoding", ParameterIn::Header, description, text().examples([json!("zstd, gzip")]).build())
}

/// The two names of the scopes.
pub fn scopes(description: &str) -> [Parameter; 2] {
    let name = |name: &str, description: &str| {
        let scope = text()
            .pattern(Some("^[0-9A-Za-z_.:/-]*$"))
            .max_length(Some(limits::SCOPE_BYTES_MAX))
            .description(Some("An empty one counts as not given."));
        let mut parameter =
            parameter(name, ParameterIn::Query, description, ArrayBuilder::new().items(scope.build()).build());
        parameter.style = Some(ParameterStyle::Form);
        parameter.explode = Some(true);
        parameter
    };
    let description = format!(
        "{description} At most {} of them, duplicates not counted, and with the rest of the request's first line and its headers \
         at most {} KiB.",
        limits::SCOPES_MAX,
        limits::REQUEST_HEAD_BYTES_MAX >> 10,
    );
    [name("scope", &description), name("selector", "Another name of `scope`; both lists count together.")]
}
