-- What is wrong with the tables of the user's in the feed.
-- $1 names that a scope column may have, the best first text[], $2 publications text[]
with published as (
    select t.relid as oid, array_agg(p.pubname::text) as publications
    from pg_publication p cross join lateral pg_get_publication_tables(p.pubname::text) as t
    where p.pubname = any ($2::text[])
    group by t.relid
)
select c.oid::regclass::text as name, fault.severity, fault.what, fault.why, fault.advice, fault.fix
from published
join pg_class c using (oid)
cross join lateral walclock.publish_faults(c.oid, $1::text[], publications) as fault
where c.relnamespace <> coalesce(to_regnamespace('walclock'), 0)
order by name, fault.place
