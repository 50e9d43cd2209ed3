-- The tables of the user's in the feed, each with its replica identity and its scope column.
-- $1 names that a scope column may have, the best first text[]
select c.oid::regclass::text as name,
       c.relreplident = 'f' as identity_is_full,
       i.indexrelid is not null as identity_is_index,
       selector.attname::text as selector,
       coalesce(selector.attnum = any (i.indkey), false) as identity_has_selector,
       -- What a snapshot needs, which shows a role all rows or fails.
       case
           when not has_schema_privilege(c.relnamespace, 'usage') then
               format('grant usage on schema %s to %I', c.relnamespace::regnamespace, current_user)
           when not has_table_privilege(c.oid, 'select') then format('grant select on %s to %I', c.oid::regclass, current_user)
           when row_security_active(c.oid) then format('alter role %I bypassrls', current_user)
       end as snapshot_fix
from pg_publication p
join pg_publication_rel r on r.prpubid = p.oid
join pg_class c on c.oid = r.prrelid
left join pg_index i on i.indrelid = c.oid
    and case c.relreplident when 'd' then i.indisprimary when 'i' then i.indisreplident else false end
left join lateral (
    select a.attname, a.attnum
    from unnest($1::text[]) with ordinality as wanted (name, place)
    join pg_attribute a on a.attrelid = c.oid and a.attname = wanted.name and not a.attisdropped
    order by place
    limit 1
) as selector on true
where p.pubname = 'walclock'
order by name
