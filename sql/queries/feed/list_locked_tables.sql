-- The tables that others have to themselves at this moment. It waits for no lock.
select n.nspname || '.' || c.relname
from pg_locks l
join pg_class c on c.oid = l.relation and c.relkind in ('r', 'p')
join pg_namespace n on n.oid = c.relnamespace
where l.database = (select oid from pg_database where datname = current_database())
  and l.mode = 'AccessExclusiveLock' and l.granted and l.pid <> pg_backend_pid()
  and n.nspname <> 'pg_catalog' and n.nspname <> 'pg_toast'
order by 1
limit 10
