-- The published tables that have a scope column, each with its published columns, what locks it, what reads the rows of
-- some scopes, and what has to be run first where the role may not read all of it.
-- Of walclock's own tables only timers are told, here and in the feed: others hold secrets.
-- Columns and filters of publications are there from PostgreSQL 15 on; as JSON they may be absent.
-- $1 publications text[], $2 names that a scope column may have, the best first text[], $3 scopes text[]
with published as (
    select c.oid as relation, c.relkind = 'p' as is_partitioned, n.nspname, c.relname,
           to_jsonb(p) -> 'attnames' as listed, to_jsonb(p) ->> 'rowfilter' as filter
    from pg_publication_tables p
    join pg_namespace n on n.nspname = p.schemaname
    join pg_class c on c.relnamespace = n.oid and c.relname = p.tablename
    where p.pubname = any ($1::text[])
      and (n.nspname <> 'walclock' or c.relname = 'timers')
), tables as (
    -- A row is published where one of the publications has no filter or one that holds.
    select relation, is_partitioned, nspname, relname, min(listed::text)::jsonb as listed,
           case when bool_and(filter is not null) then string_agg(distinct format('(%s)', filter), ' or ') end as filter
    from published
    group by relation, is_partitioned, nspname, relname
), columns as (
    select t.relation, a.attname::text as name, a.attnum as place, a.atttypid as type
    from tables t
    join pg_attribute a on a.attrelid = t.relation and a.attnum > 0 and not a.attisdropped
    where (t.listed is null or t.listed ? a.attname)
      and (a.attgenerated = '' or current_setting('server_version_num')::int >= 180000)
), selectors as (
    select distinct on (c.relation) c.relation,
           case
               when c.type in ('text'::regtype, 'varchar'::regtype) then
                   -- The second half is for columns whose collation takes unequal texts for equal; the first, for indexes.
                   format('%1$I = any (%2$L::text[]) and %1$I collate "C" = any (%2$L::text[])', c.name, $3::text[])
               when c.type in ('text[]'::regtype, 'varchar[]'::regtype) then
                   format('%1$I::text[] && %2$L::text[] and %1$I::text[] collate "C" && %2$L::text[]', c.name, $3::text[])
               -- Its text is padded, and its value is not.
               when c.type = 'bpchar'::regtype then
                   format('%1$I::text collate "C" = any (%2$L::text[])', c.name, $3::text[])
               else format('format(%L, %I) = any (%L::text[])', '%s', c.name, $3::text[])
           end as condition
    from columns c
    join unnest($2::text[]) with ordinality as wanted (name, place) on wanted.name = c.name
    order by c.relation, wanted.place
), shards as (
    select array_agg(shard) as asked from generate_series(0, 255) as shard
    where 'walclock.timers/' || shard = any ($3::text[])
)
select t.nspname::text, t.relname::text,
       (select array_agg(c.name order by c.place) from columns c where c.relation = t.relation) as names,
       (select array_agg(c.type order by c.place) from columns c where c.relation = t.relation) as types,
       format('lock table %s %I.%I in access share mode', extent, t.nspname, t.relname) as lock,
       format(
           'select %s from %s %I.%I where (%s) and (%s)',
           (select string_agg(quote_ident(c.name), ', ' order by c.place) from columns c where c.relation = t.relation),
           extent, t.nspname, t.relname, wanted.condition, coalesce(t.filter, 'true')
       ) as read,
       case
           when not has_schema_privilege(t.nspname, 'usage') then
               format('grant usage on schema %I to %I', t.nspname, current_user)
           when not has_table_privilege(t.relation, 'select') then
               format('grant select on %I.%I to %I', t.nspname, t.relname, current_user)
           when row_security_active(t.relation) then format('alter role %I bypassrls', current_user)
       end as missing
from tables t
cross join shards
cross join lateral (select (t.nspname, t.relname) = ('walclock', 'timers') as is_timers) as kind
-- Rows of a table that inherits are published under its own name, those of a partition perhaps under its root's.
cross join lateral (select case when t.is_partitioned then '' else 'only' end as extent) as scan
left join selectors s on s.relation = t.relation
cross join lateral (
    select case
        when not is_timers then s.condition
        when shards.asked is not null then format('shard = any (%L::smallint[])', shards.asked)
    end as condition
) as wanted
where wanted.condition is not null
  and not exists (
      select from pg_partition_ancestors(t.relation) as ancestor (relation)
      join tables r on r.relation = ancestor.relation
      where ancestor.relation <> t.relation
  )
order by t.nspname collate "C", t.relname collate "C"
