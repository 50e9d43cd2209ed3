-- The publications of the feed that have walclock's own tables, tell partitions under their own names, or leave kinds of
-- changes out, each with what repairs that. The timers are meant to be in the feed.
-- $1 publications text[]
with told as (
    select p.oid as publication, c.oid as relation, n.nspname = 'walclock' as is_own,
           r.oid is not null as is_listed, c.relispartition as is_partition
    from pg_publication p
    cross join lateral pg_get_publication_tables(p.pubname::text) as t
    join pg_class c on c.oid = t.relid
    join pg_namespace n on n.oid = c.relnamespace
    left join pg_publication_rel r on r.prpubid = p.oid and r.prrelid = c.oid
    where p.pubname = any ($1::text[]) and (n.nspname, c.relname) <> ('walclock', 'timers')
), listed as (
    select r.prpubid as publication, c.oid as relation
    from pg_publication_rel r
    join pg_class c on c.oid = r.prrelid
    join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'walclock' and c.relname <> 'timers'
)
select p.pubname::text as name,
       own.names as own,
       case
           when p.puballtables then format(
               'drop publication %1$I; create publication %1$I%2$s with (publish_via_partition_root = true)', p.pubname,
               (select ' for table ' || string_agg(distinct coalesce(pg_partition_root(relation), relation)::regclass::text, ', ')
                from told where publication = p.oid and not is_own)
           )
           else concat_ws('; ',
               (select format('alter publication %I drop table %s', p.pubname,
                              string_agg(relation::regclass::text, ', ' order by relation::regclass::text))
                from listed where publication = p.oid having count(*) > 0),
               case when own.has_unlisted then format('alter publication %I drop tables in schema walclock', p.pubname) end
           )
       end as own_fix,
       partitions.roots,
       format('alter publication %I set (publish_via_partition_root = true)', p.pubname) as roots_fix,
       kinds.untold,
       format('alter publication %I set (publish = ''insert, update, delete, truncate'')', p.pubname) as kinds_fix
from pg_publication p
cross join lateral (
    select string_agg(relation::regclass::text, ', ' order by relation::regclass::text) as names,
           -- Neither it nor what it is a partition of is listed: it comes with its schema.
           bool_or(not exists (
               select from listed
               where listed.publication = p.oid
                 and listed.relation in (select told.relation union select pg_partition_ancestors(told.relation))
           )) as has_unlisted
    from told where publication = p.oid and is_own
) as own
cross join lateral (
    select string_agg(distinct pg_partition_root(relation)::text, ', ') as roots
    from told where publication = p.oid and is_partition and not is_listed and not is_own and not p.pubviaroot
) as partitions
cross join lateral (
    -- That of the timers is meant to have inserts and updates alone.
    select string_agg(kind, ', ' order by place) as untold
    from (values (1, 'inserts', p.pubinsert), (2, 'updates', p.pubupdate), (3, 'deletes', p.pubdelete),
                 (4, 'truncates', p.pubtruncate)) as told (place, kind, is_told)
    where not is_told and p.pubname <> 'walclock_timers'
) as kinds
where own.names is not null or partitions.roots is not null or kinds.untold is not null
order by p.pubname
