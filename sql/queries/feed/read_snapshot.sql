-- Which transactions are over.
select pg_current_snapshot()::text
