-- Stores a timer; in place of the pending one of that name, if there is one, of which nothing is left. Stores nothing
-- where its moment is no good, or the namespace is not listed and is not to be made.
-- $1 namespace text, $2 id text, $3 execute_at timestamptz, $4 callback_url text, $5 callback_method text,
-- $6 callback_headers jsonb, $7 callback_timeout_seconds smallint, $8 payload json or null,
-- $9 retry_attempts_max integer or null, $10 retry_duration interval, $11 retry_interval_first interval,
-- $12 retry_multiplier double precision, $13 retry_interval_max interval,
-- $14 make the namespace boolean, $15 how far ahead its moment may lie interval, $16 now timestamptz or null
-- Returns this server's moment, which counts as its creation, and whether it was stored.
with present as materialized (
    select
        coalesce($16::timestamptz, now()) as now,
        $3::timestamptz > coalesce($16::timestamptz, now())
            and $3::timestamptz <= coalesce($16::timestamptz, now()) + $15::interval as is_timely
), made as (
    insert into walclock.namespaces (name, created_at)
    select $1::text, now from present
    where $14::boolean and is_timely
    on conflict (name) do nothing
), stored as (
    insert into walclock.timers (
        namespace, id, execute_at, callback_url, callback_method, callback_headers, callback_timeout_seconds, payload,
        retry_attempts_max, retry_duration, retry_interval_first, retry_multiplier, retry_interval_max,
        created_at, updated_at
    )
    select
        $1::text, $2::text, $3::timestamptz, $4::text, $5::text, $6::jsonb, $7::smallint, $8::json,
        $9::integer, $10::interval, $11::interval, $12::double precision, $13::interval,
        now, now
    from present
    where is_timely and ($14::boolean or exists (select from walclock.namespaces where name = $1::text))
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
    returning namespace
)
select now, exists (select from stored) as stored from present
