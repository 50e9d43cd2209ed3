-- Takes a transaction id: all that were taken before are less.
select pg_current_xact_id()::text
