-- Ends the callbacks of some schedules before a moment each: deletes their timers, and marks their runs as not to be tried
-- again. Run twice in one transaction: a claim that the first one has waited for shows its run to the second one only. So the
-- last 32 are looked at: the second time, what the first has ended is passed over.
-- $1 namespaces text[], $2 ids text[], $3 the moments timestamptz[]
with earlier as materialized (
    select o.namespace, o.schedule, o.scheduled_for, o.timer_id, o.made_at
    from unnest($1::text[], $2::text[], $3::timestamptz[]) as wanted (namespace, id, scheduled_for)
    cross join lateral (
        select * from walclock.occurrences as o
        where o.namespace = wanted.namespace and o.schedule = wanted.id and o.state = 'fired'
          and o.scheduled_for < wanted.scheduled_for
        order by o.scheduled_for desc limit 16
    ) as o
), deleted as (
    delete from walclock.timers as t using earlier
    where t.namespace = earlier.namespace and t.id = earlier.timer_id
    returning earlier.namespace, earlier.schedule, earlier.scheduled_for
), marked as (
    update walclock.runs as r set cancelled = true
    from earlier
    where r.namespace = earlier.namespace and r.id = earlier.timer_id and r.answered_at is null
      and r.claimed_at >= earlier.made_at and r.claimed_at < now() + interval '1 day'
    returning earlier.namespace, earlier.schedule, earlier.scheduled_for
)
update walclock.occurrences as o set state = 'cancelled', reason = 'a later occurrence takes its place'
from (select * from deleted union select * from marked) as ended
where o.namespace = ended.namespace and o.schedule = ended.schedule and o.scheduled_for = ended.scheduled_for
