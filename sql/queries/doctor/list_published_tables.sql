-- The tables of the user's in the feed, each with its scope column and the replica identities of what it is made of: its own
-- and those of its partitions, which the log follows.
-- $1 names that a scope column may have, the best first text[], $2 publications text[]
with published as (
    select distinct t.relid as oid
    from pg_publication p cross join lateral pg_get_publication_tables(p.pubname::text) as t
    where p.pubname = any ($2::text[])
)
select c.oid::regclass::text as name,
       selector.attname::text as selector,
       parts.bare, parts.bare_fix, parts.lacking, parts.lacking_fix,
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
cross join lateral (
    select string_agg(name, ', ' order by place, name) filter (where not has_identity) as bare,
           string_agg(fix, '; ' order by place, name) filter (where not has_identity) as bare_fix,
           string_agg(name, ', ' order by place, name) filter (where not has_selector) as lacking,
           string_agg(fix, '; ' order by place, name) filter (where not has_selector) as lacking_fix
    from (
        select part.oid::regclass::text as name,
               part.oid <> c.oid as place,
               format('alter table %s replica identity full', part.oid::regclass) as fix,
               part.relreplident = 'f' or i.indexrelid is not null as has_identity,
               selector.attname is null or part.relreplident = 'f' or coalesce(a.attnum = any (i.indkey), false)
                   as has_selector
        from (select c.oid union select relid from pg_partition_tree(c.oid) where isleaf) as own
        join pg_class part using (oid)
        left join pg_index i on i.indrelid = part.oid
            and case part.relreplident when 'd' then i.indisprimary when 'i' then i.indisreplident else false end
        left join pg_attribute a on a.attrelid = part.oid and a.attname = selector.attname and not a.attisdropped
    ) as identities
) as parts
where c.relnamespace <> coalesce(to_regnamespace('walclock'), 0)
order by name
