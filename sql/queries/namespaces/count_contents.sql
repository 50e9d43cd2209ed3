-- What there is in a namespace: pending timers, schedules, and runs under way. Each is counted up to a bound.
-- $1 name text, $2 the bound bigint
select
    (select count(*) from (select from walclock.timers where namespace = $1 limit $2) as timers) as timers,
    (select count(*) from (select from walclock.schedules where namespace = $1 limit $2) as schedules) as schedules,
    (select count(*) from (select from walclock.under_way where namespace = $1 limit $2) as runs) as runs
