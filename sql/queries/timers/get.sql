-- The timer of a name: the pending one, else its latest run. Both tables are read in one snapshot, in which a claim has
-- either happened or not, so that a timer on its way from one to the other is always found.
-- $1 namespace text, $2 id text
with pending as materialized (
    select
        namespace, id, 'pending' as state, execute_at, retry_at, callback_url, callback_method, callback_headers,
        callback_timeout_seconds, payload, retry_attempts_max, retry_duration, retry_interval_first, retry_multiplier,
        retry_interval_max, attempts, first_attempt_at, last_error, created_at, updated_at,
        null::timestamptz as answered_at
    from walclock.timers
    where namespace = $1 and id = $2
)
select * from pending
union all
(
    select
        namespace, id, state, execute_at, retry_at, callback_url, callback_method, callback_headers,
        callback_timeout_seconds, payload, retry_attempts_max, retry_duration, retry_interval_first, retry_multiplier,
        retry_interval_max, attempts, first_attempt_at, last_error, created_at, updated_at,
        answered_at
    from walclock.runs
    where namespace = $1 and id = $2 and not exists (select from pending)
    order by claimed_at desc
    limit 1
)
