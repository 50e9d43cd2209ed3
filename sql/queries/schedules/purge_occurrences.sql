-- Deletes occurrences that the retention has passed, at most so many; returns how many. What its schedule still has waiting
-- stays, however old it is.
-- $1 retention interval, $2 limit bigint
--
-- `offset 0` leaves a look-up in the primary key as the only way: one that waits is rare, and all schedules are not to be read for it.
with old as (
    select ctid as place from walclock.occurrences as o
    where scheduled_for < now() - $1::interval and made_at < now() - $1::interval
      and (
          state <> 'buffered' or not exists (
              select from walclock.schedules as s
              where s.namespace = o.namespace and s.id = o.schedule and s.buffered_at = o.scheduled_for
              offset 0
          )
      )
    order by scheduled_for limit $2
    for update of o skip locked
), gone as (
    delete from walclock.occurrences using old where occurrences.ctid = old.place
    returning 1
)
select count(*) from gone
