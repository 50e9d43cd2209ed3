-- Schedules with a moment that is to be settled, the most urgent first: one that has come, or one ahead of which it is certain
-- what becomes of it. Those of other dispatchers' shards only once they are overdue: nobody seems to be in charge.
-- $1 shards bytea, a bit each, $2 now timestamptz, $3 until timestamptz, $4 overdue timestamptz, $5 limit bigint
select namespace, id, cron, every, time_zone, start_at, end_at, jitter, overlap, catch_up, catch_up_window, catch_up_max,
       created_at, changed_at, next_at, buffered_at, revision, active
from (
    select *, case when overlap <> 'allow' then walclock.schedule_is_active(namespace, id) else false end as active
    from walclock.schedules
    where not paused and error is null and next_at <= $3
      and (get_bit($1::bytea, shard) = 1 or next_at <= $4)
    offset 0
) as near
where next_at <= $2 or not active
order by next_at
limit $5
