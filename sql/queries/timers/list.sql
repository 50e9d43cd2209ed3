-- The timers of a namespace in the order of their ids: of each id the pending one, else its latest run.
-- $1 namespace text, $2 only ids behind this one text ('' begins at the first), $3 most rows bigint,
-- $4 only this state text or null
-- Both arms walk their primary keys and stop early.
select * from (
    (
        select
            namespace, id, 'pending' as state, execute_at, retry_at, callback_url, callback_method, callback_headers,
            callback_timeout_seconds, payload, retry_attempts_max, retry_duration, retry_interval_first,
            retry_multiplier, retry_interval_max, attempts, first_attempt_at, last_error, created_at, updated_at,
            null::timestamptz as answered_at
        from walclock.timers
        where namespace = $1 and id > $2 and coalesce($4::text, 'pending') = 'pending'
        order by id
        limit $3
    )
    union all
    (
        select * from (
            select distinct on (id)
                namespace, id, state, execute_at, retry_at, callback_url, callback_method, callback_headers,
                callback_timeout_seconds, payload, retry_attempts_max, retry_duration, retry_interval_first,
                retry_multiplier, retry_interval_max, attempts, first_attempt_at, last_error, created_at, updated_at,
                answered_at
            from walclock.runs r
            where namespace = $1 and id > $2 and coalesce($4::text, 'running') <> 'pending'
                and not exists (select from walclock.timers t where t.namespace = r.namespace and t.id = r.id)
            order by id, claimed_at desc
        ) latest
        where state = coalesce($4::text, state)
        order by id
        limit $3
    )
) listed
order by id
limit $3
