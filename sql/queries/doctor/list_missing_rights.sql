-- What the role would need in the schema and does not have, as the words of a grant.
select format('usage on schema %I', nspname) as missing
from pg_namespace
where nspname = 'walclock' and not has_schema_privilege(oid, 'usage')
union all
select format('%s on %s', privilege, c.oid::regclass)
from pg_class c
cross join (values ('select'), ('insert'), ('update'), ('delete')) as dml (privilege)
where c.relnamespace = (select oid from pg_namespace where nspname = 'walclock')
  and c.relname in ('timers', 'runs', 'claims', 'attempts', 'namespaces', 'shards', 'dispatchers', 'schedules', 'occurrences')
  and not has_table_privilege(c.oid, privilege)
union all
select format('select on %s', c.oid::regclass)
from pg_class c
where c.relnamespace = (select oid from pg_namespace where nspname = 'walclock')
  and c.relname in ('walclock_migrations', 'under_way')
  and not has_table_privilege(c.oid, 'select')
union all
select format('execute on function %s', oid::regprocedure)
from pg_proc
where pronamespace = (select oid from pg_namespace where nspname = 'walclock')
  and proname in ('make_partitions', 'drop_partitions', 'publish_faults')
  and not has_function_privilege(oid, 'execute')
