-- Deletes schedules of a namespace, and returns how many.
-- $1 name text, $2 limit bigint
with found as materialized (
    select ctid as place from walclock.schedules where namespace = $1 limit $2 for update
), gone as (
    delete from walclock.schedules using found where schedules.ctid = found.place returning 1
)
select count(*) from gone
