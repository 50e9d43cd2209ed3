//! Names of tables as PostgreSQL's `quote_ident` writes them.

/// Every word that some PostgreSQL from 14 to 18 would quote; sorted. One list for all versions, so that the name of a
/// table does not change with an upgrade.
#[rustfmt::skip]
const KEYWORDS: &[&str] = &[
    "all", "analyse", "analyze", "and", "any", "array", "as", "asc", "asymmetric", "authorization", "between",
    "bigint", "binary", "bit", "boolean", "both", "case", "cast", "char", "character", "check", "coalesce",
    "collate", "collation", "column", "concurrently", "constraint", "create", "cross", "current_catalog",
    "current_date", "current_role", "current_schema", "current_time", "current_timestamp", "current_user", "dec",
    "decimal", "default", "deferrable", "desc", "distinct", "do", "else", "end", "except", "exists", "extract",
    "false", "fetch", "float", "for", "foreign", "freeze", "from", "full", "grant", "greatest", "group", "grouping",
    "having", "ilike", "in", "initially", "inner", "inout", "int", "integer", "intersect", "interval", "into", "is",
    "isnull", "join", "json", "json_array", "json_arrayagg", "json_exists", "json_object", "json_objectagg",
    "json_query", "json_scalar", "json_serialize", "json_table", "json_value", "lateral", "leading", "least", "left",
    "like", "limit", "localtime", "localtimestamp", "merge_action", "national", "natural", "nchar", "none",
    "normalize", "not", "notnull", "null", "nullif", "numeric", "offset", "on", "only", "or", "order", "out",
    "outer", "overlaps", "overlay", "placing", "position", "precision", "primary", "real", "references", "returning",
    "right", "row", "select", "session_user", "setof", "similar", "smallint", "some", "substring", "symmetric",
    "system_user", "table", "tablesample", "then", "time", "timestamp", "to", "trailing", "treat", "trim", "true",
    "union", "unique", "user", "using", "values", "varchar", "variadic", "verbose", "when", "where", "window",
    "with", "xmlattributes", "xmlconcat", "xmlelement", "xmlexists", "xmlforest", "xmlnamespaces", "xmlparse",
    "xmlpi", "xmlroot", "xmlserialize", "xmltable",
];

/// `schema.name`, each part in quotes where it needs them. An empty schema is `pg_catalog`, as the stream has it.
pub(in crate::feed) fn qualified(schema: &[u8], name: &[u8]) -> String {
    let schema = if schema.is_empty() { b"pg_catalog" } else { schema };
    let mut out = String::with_capacity(schema.len() + 1 + name.len());
    quote(&mut out, &String::from_utf8_lossy(schema));
    out.push('.');
    quote(&mut out, &String::from_utf8_lossy(name));
    out
}

fn quote(out: &mut String, name: &str) {
    let starts_well = name.starts_with(|first: char| first.is_ascii_lowercase() || first == '_');
    let goes_on_well = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if starts_well && goes_on_well && KEYWORDS.binary_search(&name).is_err() {
        out.push_str(name);
        return;
    }
    out.push('"');
    for letter in name.chars() {
        if letter == '"' {
            out.push('"');
        }
        out.push(letter);
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_stand_where_they_are_needed() {
        for (schema, name, quoted) in [
            ("public", "t", "public.t"),
            ("", "pg_class", "pg_catalog.pg_class"),
            ("_a1", "b_2", "_a1.b_2"),
            ("My", "Table", "\"My\".\"Table\""),
            ("public", "user", "public.\"user\""),
            ("public", "1a", "public.\"1a\""),
            ("public", "a.b", "public.\"a.b\""),
            ("public", "say \"hi\"", "public.\"say \"\"hi\"\"\""),
            ("public", "größe", "public.\"größe\""),
            ("public", "a$", "public.\"a$\""),
        ] {
            assert_eq!(qualified(schema.as_bytes(), name.as_bytes()), quoted);
        }
    }

    #[test]
    fn the_keywords_can_be_searched() {
        assert!(KEYWORDS.is_sorted());
    }
}
