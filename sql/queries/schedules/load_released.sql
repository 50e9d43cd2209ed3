-- Schedules with a moment that has waited for the last callback, which is over.
-- $1 shards bytea, a bit each, $2 limit bigint
--
-- Whether it is over costs a look at timers and runs; so each time some of those that wait are looked at, by chance, and in
-- the end all of them.
select namespace, id, cron, every, time_zone, start_at, end_at, jitter, overlap, catch_up, catch_up_window, catch_up_max,
       created_at, changed_at, next_at, buffered_at, revision, false as active
from (
    select * from walclock.schedules
    where buffered_at is not null and not paused and error is null and get_bit($1::bytea, shard) = 1
    order by random()
    limit 4 * $2::bigint
) as waiting
where not walclock.schedule_is_active(namespace, id)
limit $2::bigint
