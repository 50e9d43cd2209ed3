-- Stores timers, each in place of the pending one of that name, of which nothing is left. Of several of one name the last
-- in the arrays is stored. Stores none whose moment is no good, and none whose namespace is not listed and not to be made.
-- Of each timer: $1 namespaces text[], $2 ids text[], $3 execute_at timestamptz[], $4 callback_url text[],
-- $5 callback_method text[], $6 callback_headers jsonb[], $7 callback_timeout_seconds smallint[], $8 payload json[],
-- $9 retry_attempts_max integer[], $10 retry_duration interval[], $11 retry_interval_first interval[],
-- $12 retry_multiplier double precision[], $13 retry_interval_max interval[]; for all of them:
-- $14 make namespaces boolean, $15 how far ahead a moment may lie interval, $16 longest wait for a row text,
-- $17 now timestamptz or null
-- Returns this server's moment, which counts as their creation, and the namespaces that are not there.
--
-- Rows are written in the order of their keys, so that two of these statements never wait for each other both ways.
with present as materialized (
    -- The wait holds for this statement: whoever reads `now` has set it.
    select coalesce($17::timestamptz, now()) as now, set_config('lock_timeout', $16::text, true) as wait
), given as materialized (
    select timer.*, present.now
    from present, unnest(
        $1::text[], $2::text[], $3::timestamptz[], $4::text[], $5::text[], $6::jsonb[], $7::smallint[], $8::json[],
        $9::integer[], $10::interval[], $11::interval[], $12::double precision[], $13::interval[]
    ) with ordinality as timer (
        namespace, id, execute_at, callback_url, callback_method, callback_headers, callback_timeout_seconds, payload,
        retry_attempts_max, retry_duration, retry_interval_first, retry_multiplier, retry_interval_max, place
    )
    where timer.execute_at > present.now and timer.execute_at <= present.now + $15::interval
), named as materialized (
    select distinct namespace, now from given
), unknown as materialized (
    select namespace from named
    where not $14::boolean
        and not exists (select from walclock.namespaces where name = any (array[named.namespace]))
), made as (
    insert into walclock.namespaces (name, created_at)
    select namespace, now from named where $14::boolean order by namespace
    on conflict (name) do nothing
), stored as (
    insert into walclock.timers (
        namespace, id, execute_at, callback_url, callback_method, callback_headers, callback_timeout_seconds, payload,
        retry_attempts_max, retry_duration, retry_interval_first, retry_multiplier, retry_interval_max,
        created_at, updated_at
    )
    select distinct on (namespace collate "C", id collate "C")
        namespace, id, execute_at, callback_url, callback_method, callback_headers, callback_timeout_seconds, payload,
        retry_attempts_max, retry_duration, retry_interval_first, retry_multiplier, retry_interval_max, now, now
    from given
    where namespace not in (select namespace from unknown)
    order by namespace collate "C", id collate "C", place desc
    on conflict (namespace, id) do update set
        execute_at = excluded.execute_at,
        retry_at = null,
        callback_url = excluded.callback_url,
        callback_method = excluded.callback_method,
        callback_headers = excluded.callback_headers,
        callback_timeout_seconds = excluded.callback_timeout_seconds,
        payload = excluded.payload,
        retry_attempts_max = excluded.retry_attempts_max,
        retry_duration = excluded.retry_duration,
        retry_interval_first = excluded.retry_interval_first,
        retry_multiplier = excluded.retry_multiplier,
        retry_interval_max = excluded.retry_interval_max,
        attempts = 0,
        first_attempt_at = null,
        last_error = null,
        created_at = excluded.created_at,
        updated_at = excluded.updated_at
)
select now, array(select namespace from unknown) as unknown_namespaces from present
