-- Ends a walsender of the same role that goes by this name, if it is still there.
-- $1 pid int4, $2 application name text; PostgreSQL keeps 63 bytes of it
select pg_terminate_backend(pid) from pg_stat_activity
where pid = $1::int4 and backend_type = 'walsender' and usename = current_user
  and application_name = left($2::text, 63)
