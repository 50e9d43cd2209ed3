-- The tables of the user's in the feed, each with its scope column.
-- $1 names that a scope column may have, the best first text[], $2 publications text[]
with published as (
    select distinct t.relid as oid
    from pg_publication p cross join lateral pg_get_publication_tables(p.pubname::text) as t
    where p.pubname = any ($2::text[])
)
select c.oid::regclass::text as name,
       selector.attname::text as selector,
       -- What a snapshot needs, which shows a role all rows or fails.
       case
           when not has_schema_privilege(c.relnamespace, 'usage') then
               format('grant usage on schema %s to %I', c.relnamespace::regnamespace, current_user)
           when not has_table_privilege(c.oid, 'select') then format('grant select on %s to %I', c.oid::regclass, current_user)
           when row_security_active(c.oid) then format('alter role %I bypassrls', current_user)
       end as snapshot_fix
from published
join pg_class c using (oid)
left join lateral (
    select a.attname
    from unnest($1::text[]) with ordinality as wanted (name, place)
    join pg_attribute a on a.attrelid = c.oid and a.attname = wanted.name and not a.attisdropped
    order by place
    limit 1
) as selector on true
where c.relnamespace <> coalesce(to_regnamespace('walclock'), 0)
order by name
