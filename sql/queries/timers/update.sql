-- Changes a pending timer where a value is given. A moment that is given counts as a new one: the attempts begin anew.
-- Changes nothing where that moment is no good.
-- $1 namespace text, $2 id text, $3 execute_at timestamptz or null, $4 callback_url text or null,
-- $5 callback_timeout_seconds smallint or null, $6 is there a payload boolean, $7 payload json or null,
-- $8 is there a bound on the attempts boolean, $9 retry_attempts_max integer or null, $10 retry_duration interval or null,
-- $11 retry_interval_first interval or null, $12 retry_multiplier double precision or null,
-- $13 retry_interval_max interval or null, $14 how far ahead a moment may lie interval, $15 now timestamptz or null,
-- $16 callback_method text or null, $17 callback_headers jsonb or null
-- Returns this server's moment and the timer as it is then; with nulls in its place where nothing was changed.
with present as materialized (
    select coalesce($15::timestamptz, now()) as now
), changed as (
    update walclock.timers set
        execute_at = coalesce($3::timestamptz, execute_at),
        retry_at = case when $3::timestamptz is null then retry_at end,
        attempts = case when $3::timestamptz is null then attempts else 0 end,
        first_attempt_at = case when $3::timestamptz is null then first_attempt_at end,
        last_error = case when $3::timestamptz is null then last_error end,
        callback_url = coalesce($4::text, callback_url),
        callback_method = coalesce($16::text, callback_method),
        callback_headers = coalesce($17::jsonb, callback_headers),
        callback_timeout_seconds = coalesce($5::smallint, callback_timeout_seconds),
        payload = case when $6::boolean then $7::json else payload end,
        retry_attempts_max = case when $8::boolean then $9::integer else retry_attempts_max end,
        retry_duration = coalesce($10::interval, retry_duration),
        retry_interval_first = coalesce($11::interval, retry_interval_first),
        retry_multiplier = coalesce($12::double precision, retry_multiplier),
        retry_interval_max = coalesce($13::interval, retry_interval_max),
        updated_at = present.now
    from present
    where namespace = $1 and id = $2
        and ($3::timestamptz is null or ($3::timestamptz > present.now and $3::timestamptz <= present.now + $14::interval))
    returning
        namespace, id, execute_at, retry_at, callback_url, callback_method, callback_headers, callback_timeout_seconds,
        payload, retry_attempts_max, retry_duration, retry_interval_first, retry_multiplier, retry_interval_max,
        attempts, first_attempt_at, last_error, created_at, updated_at
)
select present.now, changed.*
from present left join changed on true
