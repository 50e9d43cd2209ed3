-- Whether this walsender waits (for WAL, or for us) rather than reads its way through the WAL; no row where it is gone.
-- $1 pid int4
select coalesce(wait_event like 'WalSender%', false) from pg_stat_activity
where pid = $1::int4 and backend_type = 'walsender'
