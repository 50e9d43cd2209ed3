-- Whether this walsender still lives.
-- $1 pid int4
select exists (select from pg_stat_activity where pid = $1::int4 and backend_type = 'walsender')
