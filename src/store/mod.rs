//! PostgreSQL at rest: one Rust function per file of `sql/queries`. The only place that holds SQL.
