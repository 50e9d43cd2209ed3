-- The schema of walclock: pending timers, what became of them, and who may claim them.
-- A released migration is never edited; a later file changes what this one made.
--
-- Names and ids sort by their bytes (collate "C"): as the server's own code sorts them, alike in every database, and fast.

create schema if not exists walclock;

-- A namespace isolates ids. One that is not listed here has the defaults, except that the HTTP API may refuse it.
create table walclock.namespaces (
    name text collate "C" primary key
        constraint namespaces_name_length check (octet_length(name) between 1 and 255)
        constraint namespaces_name_characters check (name !~ '[[:cntrl:]]'),
    -- Secrets that sign callbacks (Standard Webhooks, whsec_…); two while one replaces the other.
    secrets text[] not null default '{}'
        constraint namespaces_secrets_count check (cardinality(secrets) <= 2)
        -- A list of whole secrets: what could not be read would leave callbacks without their signature.
        constraint namespaces_secrets_list check (array_ndims(secrets) = 1 or secrets = '{}')
        constraint namespaces_secrets_whole
            check (cardinality(string_to_array(array_to_string(secrets, ' '), ' ')) = cardinality(secrets))
        constraint namespaces_secrets_form
            check (array_to_string(secrets, ' ') ~
                '^(whsec_(([0-9A-Za-z+/]{4})+|([0-9A-Za-z+/]{4})*[0-9A-Za-z+/]{2,3})=*( |$))*$'),
    created_at timestamptz not null default now()
);

-- Pending timers, and nothing else: a claim moves the row to walclock.runs.
create table walclock.timers (
    namespace text collate "C" not null
        constraint timers_namespace_length check (octet_length(namespace) between 1 and 255)
        constraint timers_namespace_characters check (namespace !~ '[[:cntrl:]]'),
    id text collate "C" not null
        constraint timers_id_length check (char_length(id) between 1 and 255)
        constraint timers_id_characters check (id !~ '[[:cntrl:]]'),
    execute_at timestamptz not null
        -- The years that RFC 3339 can write.
        constraint timers_execute_at_range
            check (execute_at >= '0001-01-01 00:00:00+00' and execute_at < '10000-01-01 00:00:00+00'),
    -- Set once an attempt has failed: when the next one leaves.
    retry_at timestamptz
        constraint timers_retry_at_range
            check (retry_at >= '0001-01-01 00:00:00+00' and retry_at < '10000-01-01 00:00:00+00'),
    due_at timestamptz not null generated always as (coalesce(retry_at, execute_at)) stored,
    -- The part of the ring that the timer belongs to; the change feed computes the same from namespace and id.
    shard smallint not null generated always as ((hashtextextended(namespace || '/' || id, 0) & 255)::smallint) stored,
    callback_url text not null
        constraint timers_callback_url_length check (octet_length(callback_url) <= 2048)
        constraint timers_callback_url_form check (callback_url ~* '^https?://[^/?#@[:space:]]+([/?#][^[:space:]]*)?$'),
    callback_method text not null default 'POST'
        constraint timers_callback_method_known check (callback_method in ('GET', 'POST', 'PUT', 'PATCH', 'DELETE')),
    callback_headers jsonb not null default '{}'
        constraint timers_callback_headers_object check (jsonb_typeof(callback_headers) = 'object')
        constraint timers_callback_headers_count
            check (jsonb_array_length(jsonb_path_query_array(callback_headers, '$.keyvalue()', silent => true)) <= 32)
        constraint timers_callback_headers_length check (octet_length(callback_headers::text) <= 16384)
        constraint timers_callback_headers_names
            check (not jsonb_path_exists(callback_headers,
                '$.keyvalue() ? (!(@.key like_regex "^[-!#$%&''*+.^_`|~0-9A-Za-z]+$"))', silent => true))
        constraint timers_callback_headers_values
            check (not jsonb_path_exists(callback_headers,
                'strict $.* ? (@.type() != "string" || !(@ like_regex "^[^\\x01-\\x08\\x0a-\\x1f\\x7f]*$"))', silent => true)),
    callback_timeout_seconds smallint not null default 30
        constraint timers_callback_timeout_range check (callback_timeout_seconds between 1 and 300),
    -- json, not jsonb: the receiver gets the bytes that were given.
    payload json
        constraint timers_payload_length check (octet_length(payload::text) <= 102400),
    retry_attempts_max integer
        constraint timers_retry_attempts_max_range check (retry_attempts_max >= 1),
    retry_duration interval not null default '24 hours'
        constraint timers_retry_duration_range check (retry_duration between '0' and '100 years'),
    retry_interval_first interval not null default '1 second'
        constraint timers_retry_interval_first_range check (retry_interval_first between '1 millisecond' and '100 years'),
    retry_multiplier double precision not null default 2.0
        constraint timers_retry_multiplier_range check (retry_multiplier between 1.0 and 100.0),
    retry_interval_max interval not null default '5 minutes'
        constraint timers_retry_interval_max_range check (retry_interval_max between '1 millisecond' and '100 years'),
    attempts integer not null default 0
        constraint timers_attempts_range check (attempts >= 0),
    first_attempt_at timestamptz,
    last_error text
        constraint timers_last_error_length check (octet_length(last_error) <= 1024),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint timers_retry_follows_an_attempt check (retry_at is null or attempts > 0),
    primary key (namespace, id)
);

-- What the dispatcher loads by: the near future. One order over all shards, because a dispatcher usually holds many
-- of them: it passes over the entries of others', which is cheaper than to merge 256 ranges. No name or id has a control
-- character, so that the text sorts as the pair would; as a text it can never be mistaken for a way to look up a key.
create index timers_by_due on walclock.timers (due_at, (namespace || E'\x01' || id));

-- Every timer comes and goes; dead rows must not pile up under the index above.
alter table walclock.timers set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);

-- What became of a timer: running, then succeeded or failed. One partition a day, by the moment of the claim.
create table walclock.runs (
    namespace text collate "C" not null,
    id text collate "C" not null,
    claimed_at timestamptz not null,
    shard smallint not null,
    -- The epoch of the shard's lease under which the run is under way: a settle under another one changes nothing.
    epoch bigint not null,
    state text not null default 'running'
        constraint runs_state_known check (state in ('running', 'succeeded', 'failed')),
    execute_at timestamptz not null,
    retry_at timestamptz,
    due_at timestamptz not null,
    callback_url text not null,
    callback_method text not null,
    callback_headers jsonb not null,
    callback_timeout_seconds smallint not null,
    payload json,
    retry_attempts_max integer,
    retry_duration interval not null,
    retry_interval_first interval not null,
    retry_multiplier double precision not null,
    retry_interval_max interval not null,
    -- This attempt counted: 1 for the first.
    attempts integer not null
        constraint runs_attempts_range check (attempts >= 1),
    first_attempt_at timestamptz,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    -- The last attempt.
    sent_at timestamptz,
    answered_at timestamptz,
    status smallint,
    reply text,
    last_error text,
    constraint runs_over_means_answered check ((state = 'running') = (answered_at is null)),
    primary key (namespace, id, claimed_at)
) partition by range (claimed_at);

-- What a new owner of a shard looks for.
create index runs_running_by_shard on walclock.runs (shard) where state = 'running';

-- The failed attempts before the last one, which stands in its run's row. One partition a day.
create table walclock.attempts (
    namespace text collate "C" not null,
    id text collate "C" not null,
    claimed_at timestamptz not null,
    attempt integer not null,
    due_at timestamptz not null,
    sent_at timestamptz not null,
    answered_at timestamptz not null,
    status smallint,
    reply text,
    error text,
    primary key (namespace, id, claimed_at)
) partition by range (claimed_at);

-- Leases. An owner may claim while expires_at lies ahead by this server's clock; the epoch grows with every new owner.
create table walclock.shards (
    shard smallint primary key check (shard between 0 and 255),
    owner text,
    epoch bigint not null default 0,
    expires_at timestamptz not null default '-infinity'
) with (fillfactor = 50);

insert into walclock.shards (shard) select generate_series(0, 255);

-- Dispatchers that are alive: what a fair share of the shards is follows from their number.
create table walclock.dispatchers (
    owner text primary key,
    started_at timestamptz not null default now(),
    expires_at timestamptz not null
) with (fillfactor = 50);

-- Both, as a client wants to see them: what is pending, and the runs.
create view walclock.timer_status as
select namespace, id, 'pending' as status, execute_at, due_at, attempts, last_error,
       null::timestamptz as sent_at, null::timestamptz as answered_at, null::smallint as http_status,
       callback_url, payload, created_at, updated_at, null::timestamptz as claimed_at
from walclock.timers
union all
select namespace, id, state, execute_at, due_at, attempts, last_error,
       sent_at, answered_at, status,
       callback_url, payload, created_at, updated_at, claimed_at
from walclock.runs;

-- Makes the daily partitions of runs and attempts from yesterday to some days ahead, and returns how many it made. Safe to
-- call at any time, by many. A partition is made apart and then attached, which claims and settles do not wait for.
create function walclock.make_partitions(days_ahead integer default 7) returns integer
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
declare
    day date;
    made integer := 0;
    parent text;
    name text;
begin
    perform pg_advisory_xact_lock(hashtextextended('walclock.partitions', 0));
    for day in select (clock_timestamp() at time zone 'UTC')::date + generate_series(-1, days_ahead) loop
        foreach parent in array array['runs', 'attempts'] loop
            name := parent || '_' || to_char(day, 'YYYYMMDD');
            continue when to_regclass(format('walclock.%I', name)) is not null;
            -- A settle updates its row in place, for which the page needs room.
            execute format('create table walclock.%I (like walclock.%I including defaults including constraints)'
                           ' with (fillfactor = 70)', name, parent);
            execute format('alter table walclock.%I attach partition walclock.%I for values from (%L) to (%L)',
                           parent, name, to_char(day, 'YYYY-MM-DD 00:00:00+00'), to_char(day + 1, 'YYYY-MM-DD 00:00:00+00'));
            made := made + 1;
        end loop;
    end loop;
    return made;
end $$;

-- Drops the partitions whose whole day lies further back than the retention, unless a run in them is still running, and
-- returns how many days it dropped. A drop needs the table to itself for a moment. While somebody reads it, it would wait,
-- and every claim behind it; so it gives up soon (lock_not_available), and the next call tries again.
create function walclock.drop_partitions(retention interval) returns integer
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
    set lock_timeout = '100ms' as $$
declare
    day date;
    dropped integer := 0;
    name text;
    running boolean;
begin
    perform pg_advisory_xact_lock(hashtextextended('walclock.partitions', 0));
    for name in
        select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'walclock.runs'::regclass order by c.relname
    loop
        day := to_date(right(name, 8), 'YYYYMMDD');
        continue when (day + 1)::timestamp at time zone 'UTC' > clock_timestamp() - retention;
        execute format('select exists (select from walclock.%I where state = ''running'')', name) into running;
        continue when running;
        execute format('drop table walclock.%I', name);
        execute format('drop table if exists walclock.%I', 'attempts_' || right(name, 8));
        dropped := dropped + 1;
    end loop;
    return dropped;
end $$;

-- Both act as the owner of the tables, so that the server's role need not be; so they are not for everybody.
revoke execute on function walclock.make_partitions, walclock.drop_partitions from public;

select walclock.make_partitions();

-- What the change feed reads. The first is the dispatcher's news; the second is the user's own tables.
create publication walclock_timers for table walclock.timers with (publish = 'insert, update');
create publication walclock with (publish_via_partition_root = true);

-- Adds a table of the user's to the feed, after checking that its changes can be told to the right scopes.
create function walclock.publish(target regclass, force boolean default false,
                                 selector_columns text[] default '{_change_selector,_apid_scope}') returns void
    language plpgsql as $$
declare
    relation pg_class;
    selector text;
    bare text;
    bare_fix text;
    lacking text;
    lacking_fix text;
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
    if relation.relpersistence <> 'p' then
        raise exception '% is not a permanent table', target
            using hint = format('run: alter table %s set logged', target);
    end if;
    select a.attname into selector
    from unnest(selector_columns) with ordinality as wanted(name, place)
    join pg_attribute a on a.attrelid = target and a.attname = wanted.name and not a.attisdropped
    order by place limit 1;

    -- What the log has of a partition's old rows follows the partition's own replica identity, which a new one does not
    -- inherit; the root's says what they are taken for.
    select string_agg(part::text, ', ' order by place, part::text) filter (where not has_identity),
           string_agg(fix, '; ' order by place, part::text) filter (where not has_identity),
           string_agg(part::text, ', ' order by place, part::text) filter (where not has_selector),
           string_agg(fix, '; ' order by place, part::text) filter (where not has_selector)
    into bare, bare_fix, lacking, lacking_fix
    from (
        select c.oid::regclass as part,
               c.oid <> target as place,
               format('alter table %s replica identity full', c.oid::regclass) as fix,
               c.relreplident = 'f' or i.indexrelid is not null as has_identity,
               selector is null or c.relreplident = 'f' or coalesce(a.attnum = any (i.indkey), false) as has_selector
        from (select target::oid as oid union select relid from pg_partition_tree(target) where isleaf) as parts
        join pg_class c using (oid)
        left join pg_index i on i.indrelid = c.oid
            and case c.relreplident when 'd' then i.indisprimary when 'i' then i.indisreplident else false end
        left join pg_attribute a on a.attrelid = c.oid and a.attname = selector and not a.attisdropped
    ) as identities;

    if bare is not null then
        raise exception '% has no replica identity: its updates and deletes would be refused', bare
            using hint = format('give it a primary key, or run: %s', bare_fix);
    end if;
    if lacking is not null and not force then
        raise exception 'the replica identity of % lacks its scope column %', lacking, selector
            using detail = 'a deleted or moved row could not be told to the readers of the scope it leaves',
                  hint = format('run: %s; or accept that with walclock.publish(%L, force => true)', lacking_fix, target);
    end if;
    if not exists (select from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
                   where p.pubname = 'walclock' and r.prrelid = target) then
        execute format('alter publication walclock add table %s', target);
    end if;
end $$;
