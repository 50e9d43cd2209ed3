-- Which transactions this one sees, and since when.
select pg_current_snapshot()::text, to_char(statement_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
