-- Cancels pending timers of a namespace, and returns how many.
-- $1 name text, $2 limit bigint
with found as materialized (
    select ctid as place from walclock.timers where namespace = $1 limit $2 for update
), gone as (
    delete from walclock.timers using found where timers.ctid = found.place returning 1
)
select count(*) from gone
