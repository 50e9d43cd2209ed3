-- Sets what this version of PostgreSQL knows of these settings, for this connection.
-- $1 names text[], $2 values text[]
select set_config(s.name, wanted.value, false)
from unnest($1::text[], $2::text[]) as wanted (name, value)
join pg_settings s on lower(s.name) = lower(wanted.name)
