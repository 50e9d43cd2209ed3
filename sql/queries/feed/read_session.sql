-- This session, so that it can be told from a later one with the same pid.
select pid, (extract(epoch from backend_start) * 1000000)::int8 from pg_stat_activity where pid = pg_backend_pid()
