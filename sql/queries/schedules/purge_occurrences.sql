-- Deletes occurrences that the retention has passed, at most so many; returns how many.
-- $1 retention interval, $2 limit bigint
with old as (
    select ctid as place from walclock.occurrences
    where scheduled_for < now() - $1::interval and made_at < now() - $1::interval and state <> 'buffered'
    order by scheduled_for limit $2
    for update skip locked
), gone as (
    delete from walclock.occurrences using old where occurrences.ctid = old.place
    returning 1
)
select count(*) from gone
