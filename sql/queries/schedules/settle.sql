-- Settles moments of schedules, each schedule only if nobody has touched it since it was read: moves it on to its next moment,
-- notes what became of the moments, and makes the timers. Returns the numbers of the schedules, from 1, for which that is done.
-- The schedules: $1 namespaces text[], $2 ids text[], $3 revisions bigint[], $4 the next_at that was read timestamptz[],
-- $5 the new next_at timestamptz[], $6 the new buffered_at timestamptz[], $7 errors text[],
-- $8 when the one that has waited leaves timestamptz[] (null: none has)
-- The moments: $9 numbers of their schedules bigint[], $10 scheduled_for timestamptz[], $11 execute_at timestamptz[],
-- $12 states text[], $13 reasons text[], $14 through_at timestamptz[]
-- and of the schedules once more: $15 the changed_at that was read timestamptz[], so that one is not taken for another that had
-- its name before
--
-- A schedule that another transaction holds is left for the next time. Two that settle the same moment nevertheless meet at
-- its key: the one that comes later makes no timer.
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
), made as (
    insert into walclock.occurrences as occurrence (namespace, schedule, scheduled_for, state, reason, through_at, timer_id)
    select namespace, id, scheduled_for, state, reason, through_at,
           case when state = 'fired' then walclock.occurrence_id(id, scheduled_for) end
    from moments
    on conflict do nothing
    returning namespace, schedule, scheduled_for, state, timer_id
), released as (
    update walclock.occurrences as occurrence
    set state = 'fired', timer_id = walclock.occurrence_id(taken.id, taken.waited), made_at = clock_timestamp()
    from taken
    where taken.leaves_at is not null and occurrence.namespace = taken.namespace and occurrence.schedule = taken.id
      and occurrence.scheduled_for = taken.waited and occurrence.state = 'buffered'
    returning taken.number, occurrence.timer_id, taken.leaves_at as execute_at
), firing as (
    select number, timer_id, execute_at from released
    union all
    select moments.number, made.timer_id, moments.execute_at
    from made
    join moments on moments.namespace = made.namespace and moments.id = made.schedule
        and moments.scheduled_for = made.scheduled_for
    where made.state = 'fired'
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
)
select number from taken
