-- What there is in a namespace: pending timers, schedules, and runs under way. Each is counted up to a bound.
-- $1 name text, $2 the bound bigint
-- The runs under way are found by the index of all of them, which are never many, and not among all that are kept of the name.
with running as materialized (
    select namespace from walclock.runs where state = 'running'
)
select
    (select count(*) from (select from walclock.timers where namespace = $1 limit $2) as timers) as timers,
    (select count(*) from (select from walclock.schedules where namespace = $1 limit $2) as schedules) as schedules,
    (select count(*) from (select from running where namespace = $1 limit $2) as runs) as runs
