-- Ends an earlier session of the same role, if it is still there.
-- $1 pid int4, $2 when it began int8 (microseconds since 1970)
select pg_terminate_backend(pid) from pg_stat_activity
where pid = $1::int4 and (extract(epoch from backend_start) * 1000000)::int8 = $2::int8 and usename = current_user
