-- Whether a session of the same role has waited for its client for so long; no row where it is gone.
-- $1 pid int4, $2 when it began int8 (microseconds since 1970), $3 seconds float8
-- Where activities are not tracked nothing speaks for it.
select coalesce(state <> 'active' and state_change <= clock_timestamp() - make_interval(secs => $3::float8), true)
from pg_stat_activity
where pid = $1::int4 and (extract(epoch from backend_start) * 1000000)::int8 = $2::int8 and usename = current_user
