-- Schedules with a moment that is to be settled, the most urgent first: one that has come, or one ahead of which it is certain
-- what becomes of it. Those of other dispatchers' shards only once they are overdue: nobody seems to be in charge.
-- $1 shards bytea, a bit each, $2 now timestamptz, $3 until timestamptz, $4 overdue timestamptz, $5 limit bigint
--
-- Whether a callback is not over costs a look at timers and runs, and very many schedules may share a moment. So it is asked
-- only for as many as are wanted, in the order of their moments, and of what lies ahead for a few times as many: what stands
-- behind those is settled when its moment has come. The two parts follow one another, and the limit stops both; an `order by`
-- over them would ask for all.
-- What another transaction holds could not be settled, and must not fill the answer: however many rows it holds, those behind
-- them come in their turn.
with due as materialized (
    select * from walclock.schedules
    where not paused and error is null and next_at <= $2
      and (get_bit($1::bytea, shard) = 1 or next_at <= $4)
    order by next_at
    limit $5::bigint
    for no key update skip locked
)
select namespace, id, cron, every, time_zone, start_at, end_at, jitter, overlap, catch_up, catch_up_window, catch_up_max,
       created_at, changed_at, next_at, buffered_at, revision, active
from (
    select *, case when overlap <> 'allow' then walclock.schedule_is_active(namespace, id) else false end as active
    from (
        select * from due
        union all
        (
            select * from walclock.schedules
            where not paused and error is null and next_at > $2 and next_at <= $3
              and (get_bit($1::bytea, shard) = 1 or next_at <= $4)
            order by next_at
            limit 4 * $5::bigint
        )
    ) as candidate
    offset 0
) as near
where next_at <= $2 or not active
limit $5::bigint
