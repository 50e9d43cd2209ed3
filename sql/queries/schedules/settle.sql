-- Settles moments of schedules, each schedule only if nobody has touched it since it was read: moves it on to its next moment,
-- notes what became of the moments, and makes the timers. Returns the numbers of the schedules, from 1, for which that is done, and of
-- each how many of its moments are left out because their timers' ids are taken.
-- The schedules: $1 namespaces text[], $2 ids text[], $3 revisions bigint[], $4 the next_at that was read timestamptz[],
-- $5 the new next_at timestamptz[], $6 the new buffered_at timestamptz[], $7 errors text[],
-- $8 when the one that has waited leaves timestamptz[] (null: none has)
-- The moments: $9 numbers of their schedules bigint[], $10 scheduled_for timestamptz[], $11 execute_at timestamptz[],
-- $12 states text[], $13 reasons text[], $14 through_at timestamptz[]
-- and of the schedules once more: $15 the changed_at that was read timestamptz[], so that one is not taken for another that had
-- its name before, $16 the reason text where a timer that somebody else made has the id that a moment's timer would have
--
-- A schedule that another transaction holds is left for the next time. Two that settle the same moment nevertheless meet at
-- its key: the one that comes later makes no timer. The timer comes first: where there is none, its moment has not fired, and
-- the timer in its place is no callback of the schedule.
with wanted as materialized (
    select *
    from unnest($1::text[], $2::text[], $3::bigint[], $4::timestamptz[], $5::timestamptz[], $6::timestamptz[], $7::text[],
                $8::timestamptz[], $15::timestamptz[])
        with ordinality as plan (namespace, id, revision, read_at, new_at, waits, wrong, leaves_at, changed_at, number)
), found as materialized (
    select schedules.ctid as place, schedules.buffered_at as waited, wanted.number, wanted.new_at, wanted.waits, wanted.wrong,
           wanted.leaves_at
    from wanted
    join walclock.schedules on schedules.namespace = wanted.namespace and schedules.id = wanted.id
    where schedules.revision = wanted.revision and schedules.next_at = wanted.read_at and not schedules.paused
      and schedules.changed_at = wanted.changed_at
    for no key update of schedules skip locked
), taken as materialized (
    update walclock.schedules
    set next_at = found.new_at, buffered_at = found.waits, error = found.wrong, revision = revision + 1
    from found
    where schedules.ctid = found.place
    returning schedules.*, found.number, found.waited, found.leaves_at
), moments as materialized (
    select taken.number, taken.namespace, taken.id, moment.*
    from unnest($9::bigint[], $10::timestamptz[], $11::timestamptz[], $12::text[], $13::text[], $14::timestamptz[])
        as moment (schedule_number, scheduled_for, execute_at, state, reason, through_at)
    join taken on taken.number = moment.schedule_number
), leaving as materialized (
    select taken.number, occurrence.namespace, occurrence.schedule, occurrence.scheduled_for,
           walclock.occurrence_id(taken.id, taken.waited) as timer_id, taken.leaves_at as execute_at
    from taken
    join walclock.occurrences as occurrence
        on occurrence.namespace = taken.namespace and occurrence.schedule = taken.id and occurrence.scheduled_for = taken.waited
    where taken.leaves_at is not null and occurrence.state = 'buffered'
    for no key update of occurrence
), firing as materialized (
    select number, timer_id, execute_at from leaving
    union all
    select number, walclock.occurrence_id(id, scheduled_for), execute_at
    from moments
    where state = 'fired' and not exists (
        select from walclock.occurrences as occurrence
        where occurrence.namespace = moments.namespace and occurrence.schedule = moments.id
          and occurrence.scheduled_for = moments.scheduled_for
    )
), timers as (
    insert into walclock.timers (
        namespace, id, execute_at, callback_url, callback_method, callback_headers, callback_timeout_seconds, payload,
        retry_attempts_max, retry_duration, retry_interval_first, retry_multiplier, retry_interval_max
    )
    select
        taken.namespace, firing.timer_id, firing.execute_at, taken.callback_url, taken.callback_method,
        taken.callback_headers, taken.callback_timeout_seconds, taken.payload,
        taken.retry_attempts_max, taken.retry_duration, taken.retry_interval_first, taken.retry_multiplier,
        taken.retry_interval_max
    from firing
    join taken using (number)
    on conflict (namespace, id) do nothing
    returning namespace, id
), made as (
    insert into walclock.occurrences as occurrence (namespace, schedule, scheduled_for, state, reason, through_at, timer_id)
    select moments.namespace, moments.id, scheduled_for,
           case when state = 'fired' and timers.id is null then 'skipped' else state end,
           case when state = 'fired' and timers.id is null then $16 else reason end,
           through_at, timers.id
    from moments
    left join timers on state = 'fired' and timers.namespace = moments.namespace
        and timers.id = walclock.occurrence_id(moments.id, scheduled_for)
    on conflict do nothing
    returning namespace, schedule, state, reason
), released as (
    update walclock.occurrences as occurrence
    set state = case when timers.id is null then 'skipped' else 'fired' end,
        reason = case when timers.id is null then $16 end, timer_id = timers.id, made_at = clock_timestamp()
    from leaving
    left join timers on timers.namespace = leaving.namespace and timers.id = leaving.timer_id
    where occurrence.namespace = leaving.namespace and occurrence.schedule = leaving.schedule
      and occurrence.scheduled_for = leaving.scheduled_for
    returning occurrence.namespace, occurrence.schedule, occurrence.state, occurrence.reason
), clashing as (
    select namespace, schedule from made where state = 'skipped' and reason = $16
    union all
    select namespace, schedule from released where state = 'skipped' and reason = $16
)
select number, (
    select count(*) from clashing where clashing.namespace = taken.namespace and clashing.schedule = taken.id
) as clashes
from taken
