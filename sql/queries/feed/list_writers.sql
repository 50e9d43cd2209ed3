-- The transactions that have written and are not over: the creation of a slot waits for them.
select coalesce(pid::text, 'prepared transaction ' || gid)
from (select pid, null::text as gid, backend_xid as xid from pg_stat_activity
      where backend_xid is not null and pid <> pg_backend_pid()
      union all
      select null, gid, transaction from pg_prepared_xacts) as writers
order by age(xid) desc limit 10
