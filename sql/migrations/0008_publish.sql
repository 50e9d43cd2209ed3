-- What is wrong with telling the changes of a table: the publications have it, or it is to be added to them as a whole.
-- `walclock.publish` refuses such a table and `walclock doctor` names it. A fault that is fatal is never accepted, one that is
-- refused is by force, and one that is told of is without.
-- What PostgreSQL has from a later version on is asked for as JSON, where it may be absent.
create function walclock.publish_faults(target regclass, selector_columns text[], publications text[])
    returns table (place integer, severity text, what text, why text, advice text, fix text)
    language sql stable as $$
with asked as (
    select p.pubname,
           p.pubupdate as tells_updates,
           p.pubupdate or p.pubdelete as tells_old,
           coalesce(to_jsonb(p) ->> 'pubgencols' = 's', false) as tells_stored,
           (
               select array_agg(attnum::int2)
               from jsonb_array_elements_text(nullif(to_jsonb(r) -> 'prattrs', 'null')) as listed (attnum)
           ) as list,
           to_jsonb(r) ->> 'prqual' is not null as has_filter
    from pg_publication p
    left join pg_publication_rel r on r.prpubid = p.oid and r.prrelid = target
    where p.pubname = any (publications)
), selector as (
    select a.attname, a.attnum, a.attgenerated, a.atttypid
    from unnest(selector_columns) with ordinality as wanted (name, place)
    join pg_attribute a on a.attrelid = target and a.attname = wanted.name and not a.attisdropped
    order by place
    limit 1
), parts as (
    -- What the log has of a partition's old rows follows the partition's own replica identity, which a new one does not
    -- inherit; the root's says what they are taken for. A deferrable key identifies nothing, nor does what an index includes.
    select c.oid,
           c.oid::regclass::text as name,
           c.oid <> target as is_below,
           c.relreplident = 'f' as is_full,
           case when c.relreplident <> 'f' then (i.indkey::int2[])[0:i.indnkeyatts - 1] end as key
    from (select target::oid as oid union select relid from pg_partition_tree(target) where isleaf) as own
    join pg_class c using (oid)
    left join pg_index i on i.indrelid = c.oid and i.indisvalid and i.indimmediate
        and case c.relreplident when 'd' then i.indisprimary when 'i' then i.indisreplident else false end
), identities as (
    select p.*,
           p.is_full or p.key is not null as is_there,
           not exists (select from selector) or p.is_full or exists (
               select from pg_attribute a join selector s using (attname)
               where a.attrelid = p.oid and a.attnum = any (p.key)
           ) as has_selector,
           -- From PostgreSQL 18 on it refuses the table's updates and deletes where these columns are not told.
           exists (
               select from asked join pg_attribute a on a.attrelid = p.oid and not a.attisdropped
               where current_setting('server_version_num')::int >= 180000
                 and asked.tells_old and asked.list is null
                 and (p.is_full or a.attnum = any (p.key))
                 and (a.attgenerated = 'v' or a.attgenerated = 's' and not asked.tells_stored)
           ) as is_generated,
           -- And from 15 on, where a list of columns lacks some of the identity. A full one bears no list.
           exists (
               select from asked
               where asked.tells_old and asked.list is not null
                 and (p.is_full or exists (
                     select from pg_attribute a
                     join pg_attribute told on told.attrelid = target and told.attname = a.attname
                     where a.attrelid = p.oid and a.attnum = any (p.key) and told.attnum <> all (asked.list)
                 ))
           ) as is_unlisted,
           -- An update logs a value that it leaves alone and that is stored apart from its row only where the identity has it. A
           -- table whose rows are never too long for a page has no place apart.
           exists (
               select from pg_class c
               join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
               join pg_attribute told on told.attrelid = target and told.attname = a.attname
               join asked on asked.tells_updates and case
                   when asked.list is not null then told.attnum = any (asked.list)
                   else a.attgenerated = '' or a.attgenerated = 's' and asked.tells_stored
               end
               where c.oid = p.oid and c.reltoastrelid <> 0 and a.attstorage in ('x', 'e') and a.attnum <> all (p.key)
           ) as is_partial
    from parts p
), ahead as (
    -- What has to come before a full replica identity, so that PostgreSQL goes on to take updates and deletes; and whether
    -- it can be.
    select (
               select string_agg(format('begin; alter publication %1$I drop table %2$s; '
                                        'alter publication %1$I add table %2$s; commit', pubname, target), '; ')
               from asked where list is not null and not has_filter
           ) as relist,
           (
               select string_agg(format('alter publication %I set (publish_generated_columns = stored)', pubname), '; ')
               from asked where generated.has_stored and not tells_stored
           ) as store,
           not coalesce(generated.has_virtual, false)
               and not exists (select from asked where list is not null and has_filter) as may_be_full
    from (
        select bool_or(attgenerated = 's') as has_stored, bool_or(attgenerated = 'v') as has_virtual
        from pg_attribute
        where attrelid = target and not attisdropped and current_setting('server_version_num')::int >= 180000
    ) as generated
), unfit as (
    select kind,
           string_agg(name, ', ' order by is_below, name) as names,
           string_agg(format('alter table %s replica identity full', name), '; ' order by is_below, name) as full_sql
    from identities
    cross join lateral (
        values ('bare', not is_there), ('unlisted', is_unlisted), ('generated', is_generated), ('lacking', not has_selector),
               ('partial', has_selector and is_partial)
    ) as seen (kind, is_so)
    where is_so
    group by kind
), hidden as (
    select s.attname, string_agg(asked.pubname, ', ') as publications, bool_or(asked.list is not null) as is_listed,
           s.attgenerated
    from selector s
    cross join asked
    where case
        when asked.list is not null then s.attnum <> all (asked.list)
        else s.attgenerated = 'v' or s.attgenerated = 's' and not asked.tells_stored
    end
    group by s.attname, s.attgenerated
), kinds as (
    with recursive kind as (
        select s.atttypid as declared, t.* from selector s join pg_type t on t.oid = s.atttypid
        union all
        select kind.declared, t.* from kind join pg_type t on t.oid = kind.typbasetype where kind.typtype = 'd'
    )
    select declared, oid, typtype, typcategory from kind where typtype <> 'd'
), unaskable as (
    -- The feed splits arrays of texts and leaves the padding out of char(n), where the column itself is of that type.
    select s.attname, s.atttypid::regtype as type, k.typcategory = 'A' as is_array
    from selector s
    join kinds k on k.declared = s.atttypid
    where s.atttypid not in ('text[]'::regtype, 'varchar[]'::regtype)
      and (
          k.typtype in ('c', 'r', 'm') or k.typcategory in ('A', 'G', 'T')
          or k.oid in ('bytea'::regtype, 'json'::regtype, 'jsonb'::regtype, 'xml'::regtype, 'money'::regtype,
                       'timestamp'::regtype, 'timestamptz'::regtype, 'tsvector'::regtype, 'tsquery'::regtype)
          or k.oid = 'bpchar'::regtype and s.atttypid <> 'bpchar'::regtype
      )
)
select 1, 'fatal', format('%s has no replica identity', names), 'its updates and deletes are refused',
       'give it a primary key that is not deferrable',
       case when may_be_full then concat_ws('; ', relist, store, full_sql) end
from unfit, ahead
where kind = 'bare'
union all
select 2, 'fatal', format('the list of published columns of %s does not bear its replica identity', names),
       'PostgreSQL refuses its updates and deletes', 'add it to the publication again without a list', relist
from unfit, ahead
where kind = 'unlisted'
union all
select 3, 'fatal', format('the replica identity of %s has generated columns, which are not published', names),
       'PostgreSQL refuses its updates and deletes',
       'let it have a replica identity by a unique index over its key and its scope column, none of them generated',
       case when may_be_full then store end
from unfit, ahead
where kind = 'generated'
union all
select 4, 'fatal',
       case
           when is_listed then format('the list of published columns of %s lacks its scope column %s', target, attname)
           else format('the scope column %s of %s is generated and not published', attname, target)
       end,
       'its rows go to those who ask without a scope',
       case
           when is_listed then 'add it to the publication again without a list'
           else 'make it an ordinary column, and let a trigger fill it before insert or update'
       end,
       case when is_listed then relist when attgenerated = 's' then store end
from hidden, ahead
union all
select 5, 'refused', format('the scope column %s of %s is of the type %s', attname, target, type),
       'no reader can ask for what it holds: a scope has the characters 0-9 A-Z a-z _ . : / - alone',
       'let it be of text, varchar, a type whose text has no others, like uuid or bigint, or text[] or varchar[] for several scopes',
       case when is_array then format('alter table %s alter column %I type text[] using %2$I::text[]', target, attname) end
from unaskable
union all
select 6, 'refused', format('the replica identity of %s lacks its scope column %s', names, s.attname),
       format('readers of %s are not told what leaves their scope', target),
       'let it have a replica identity by a unique index over its key and its scope column, none of them generated',
       case when may_be_full then concat_ws('; ', relist, store, full_sql) end
from unfit, selector s, ahead
where kind = 'lacking'
union all
select 7, 'told', format('the replica identity of %s lacks columns that PostgreSQL may store apart', names),
       'an update that moves a row to another scope and leaves such a value alone comes to the readers there without it',
       'delete such a row and insert it anew in place of moving it',
       case when may_be_full then concat_ws('; ', relist, store, full_sql) end
from unfit, selector s, ahead
where kind = 'partial'
$$;

-- Adds a table of the user's to the feed, after checking that its changes can be told to the right scopes.
create or replace function walclock.publish(target regclass, force boolean default false,
                                            selector_columns text[] default '{_change_selector,_apid_scope}') returns void
    language plpgsql as $$
declare
    relation pg_class;
    fault record;
begin
    select * into relation from pg_class where oid = target;
    if relation.relkind not in ('r', 'p') then
        raise exception '% is not a table', target
            using hint = 'only ordinary and partitioned tables can be published';
    end if;
    if relation.relnamespace = 'walclock'::regnamespace then
        raise exception '% is one of walclock''s own tables', target
            using hint = 'the feed has walclock.timers by the publication walclock_timers, and none of the others';
    end if;
    -- PostgreSQL publishes neither, whatever is done about it. What has a lower oid came with the cluster.
    if target::oid < 16384 then
        raise exception '% is one of PostgreSQL''s own tables', target using detail = 'such a table can never be published';
    end if;
    if relation.relpersistence = 't' then
        raise exception '% is a temporary table', target using detail = 'such a table can never be published';
    end if;
    if relation.relpersistence <> 'p' then
        raise exception '% is not a permanent table', target
            using hint = format('run: alter table %s set logged', target);
    end if;
    for fault in
        select * from walclock.publish_faults(target, selector_columns, '{walclock}') order by place
    loop
        if fault.severity = 'told' then
            raise notice '%', fault.what
                using detail = fault.why, hint = concat_ws('; or ', 'run: ' || fault.fix, fault.advice);
        elsif fault.severity = 'fatal' or not force then
            raise exception '%', fault.what
                using detail = fault.why,
                      hint = concat_ws('; or ', 'run: ' || fault.fix, fault.advice,
                                       case when fault.severity = 'refused' then
                                           format('accept that with walclock.publish(%L, force => true)', target)
                                       end);
        end if;
    end loop;
    if not exists (select from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
                   where p.pubname = 'walclock' and r.prrelid = target) then
        execute format('alter publication walclock add table %s', target);
    end if;
end $$;
