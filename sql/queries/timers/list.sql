-- The timers of a namespace in the order of their ids: of each id the pending one, else its latest run.
-- $1 namespace text, $2 only ids behind this one text ('' begins at the first), $3 most rows bigint,
-- $4 only this state text or null
-- It goes from one id to the next by the primary keys, as far as the page reaches, whatever else the namespace holds. A
-- state that only runs have may be rare: their table is read once in the order of the ids, until the page is full.
with recursive walk as (
    select least(
        (select id from walclock.timers
         where namespace = $1 and id > $2 and coalesce($4::text, 'pending') = 'pending' order by id limit 1),
        (select id from walclock.runs
         where namespace = $1 and id > $2 and $4::text is null order by id limit 1)
    ) as id
    union all
    select least(
        (select id from walclock.timers
         where namespace = $1 and id > walk.id and coalesce($4::text, 'pending') = 'pending' order by id limit 1),
        (select id from walclock.runs
         where namespace = $1 and id > walk.id and $4::text is null order by id limit 1)
    )
    from walk
    where walk.id is not null
), found as (
    select id from walclock.runs
    where $4::text <> 'pending' and namespace = $1 and id > $2 and state = $4
        and not exists (select from walclock.timers where namespace = $1 and timers.id = runs.id)
        and not exists (select from walclock.runs newer
                        where newer.namespace = $1 and newer.id = runs.id and newer.claimed_at > runs.claimed_at)
    order by id
    limit $3
)
select * from (
    select latest.*
    from (select id from walk union all select id from found) ids
    cross join lateral (
        select
            namespace, id, 'pending' as state, execute_at, retry_at, callback_url, callback_method, callback_headers,
            callback_timeout_seconds, payload, retry_attempts_max, retry_duration, retry_interval_first,
            retry_multiplier, retry_interval_max, attempts, first_attempt_at, last_error, created_at, updated_at,
            null::timestamptz as answered_at
        from walclock.timers
        where namespace = $1 and id = ids.id
        union all
        (
            select
                namespace, id, state, execute_at, retry_at, callback_url, callback_method, callback_headers,
                callback_timeout_seconds, payload, retry_attempts_max, retry_duration, retry_interval_first,
                retry_multiplier, retry_interval_max, attempts, first_attempt_at, last_error, created_at, updated_at,
                answered_at
            from walclock.runs
            where namespace = $1 and id = ids.id
                and not exists (select from walclock.timers where namespace = $1 and id = ids.id)
            order by claimed_at desc
            limit 1
        )
    ) latest
    where latest.state = coalesce($4::text, latest.state)
    limit $3
) listed
order by id
