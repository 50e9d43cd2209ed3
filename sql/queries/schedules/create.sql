-- Stores a schedule whole; in place of the one of that name, if there is one. Stores nothing, and returns no row, where the
-- namespace is not listed and is not to be made.
-- $1 namespace text, $2 id text, $3 cron text or null, $4 every interval or null, $5 time_zone text,
-- $6 start_at timestamptz or null, $7 end_at timestamptz or null, $8 jitter interval, $9 overlap text, $10 catch_up text,
-- $11 catch_up_window interval, $12 catch_up_max integer, $13 paused boolean, $14 callback_url text, $15 callback_method text,
-- $16 callback_headers jsonb, $17 callback_timeout_seconds smallint, $18 payload json or null,
-- $19 retry_attempts_max integer or null, $20 retry_duration interval, $21 retry_interval_first interval,
-- $22 retry_multiplier double precision, $23 retry_interval_max interval, $24 make the namespace boolean
with made as (
    insert into walclock.namespaces (name)
    select $1::text where $24::boolean
    on conflict (name) do nothing
)
insert into walclock.schedules (
    namespace, id, cron, every, time_zone, start_at, end_at, jitter, overlap, catch_up, catch_up_window, catch_up_max, paused,
    callback_url, callback_method, callback_headers, callback_timeout_seconds, payload,
    retry_attempts_max, retry_duration, retry_interval_first, retry_multiplier, retry_interval_max
)
select
    $1::text, $2::text, $3::text, $4::interval, $5::text, $6::timestamptz, $7::timestamptz, $8::interval, $9::text, $10::text,
    $11::interval, $12::integer, $13::boolean, $14::text, $15::text, $16::jsonb, $17::smallint, $18::json, $19::integer,
    $20::interval, $21::interval, $22::double precision, $23::interval
where $24::boolean or exists (select from walclock.namespaces where name = $1::text)
on conflict (namespace, id) do update set
    cron = excluded.cron,
    every = excluded.every,
    time_zone = excluded.time_zone,
    start_at = excluded.start_at,
    end_at = excluded.end_at,
    jitter = excluded.jitter,
    overlap = excluded.overlap,
    catch_up = excluded.catch_up,
    catch_up_window = excluded.catch_up_window,
    catch_up_max = excluded.catch_up_max,
    paused = excluded.paused,
    callback_url = excluded.callback_url,
    callback_method = excluded.callback_method,
    callback_headers = excluded.callback_headers,
    callback_timeout_seconds = excluded.callback_timeout_seconds,
    payload = excluded.payload,
    retry_attempts_max = excluded.retry_attempts_max,
    retry_duration = excluded.retry_duration,
    retry_interval_first = excluded.retry_interval_first,
    retry_multiplier = excluded.retry_multiplier,
    retry_interval_max = excluded.retry_interval_max
returning id
