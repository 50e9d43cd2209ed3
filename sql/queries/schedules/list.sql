-- A page of the schedules of a namespace, in the order of their ids, each with the last moment that fired: one that
-- is made ahead is not told yet.
-- $1 namespace text, $2 the id to begin behind text, $3 limit bigint
select s.*, (
    select max(o.scheduled_for) from walclock.occurrences as o
    where o.namespace = s.namespace and o.schedule = s.id and o.state = 'fired' and o.scheduled_for <= now()
) as fired_at
from walclock.schedules as s
where s.namespace = $1 and s.id > $2
order by s.id
limit $3
