-- Moves timers to runs: those that are there, due by a moment, not locked by others, and in a shard that the caller holds.
-- $1 owner text, its leases: $2 shards smallint[] and $3 epochs bigint[], the timers: $4 namespaces text[], $5 ids text[],
-- $6 shards smallint[], $7 epochs bigint[], $8 until timestamptz, $9 namespace text: the one that all of them are in, whose
-- secrets come along then; null where they are in several
--
-- A lease is locked against a change of owner until the claim is committed, so that the next owner finds every run of
-- this one. The lock reads the newest row, whatever this statement's snapshot shows.
-- The check against `held` is a look-up in a hash; without `is true` the planner would make a join of it.
-- `= any (array[…])` is `=` to everybody but the planner: it leaves a look-up in the primary key as the only way, where `=`
-- could also mean to walk the whole of it in order, which looks cheap while the table is small, and the plan is kept.
-- Likewise due_at is spelt out, or the index of all that is due could be walked.
-- A client may have written any number of attempts: one that cannot be counted on must not fail the claim of the others.
-- What was taken is noted in walclock.claims, in the same statement: there whoever takes over finds it.
-- adopted_by is the claimer's: one that takes over what it has claimed itself is alive, which counts as no adoption.
-- A run's key is new: to be claimed again the timer must have been inserted again, which is later than this claim. Were
-- the server's clock set back to this very microsecond meanwhile, the statement would fail and succeed when repeated.
with held as materialized (
    select shards.shard, shards.epoch
    from unnest($2::smallint[], $3::bigint[]) as lease (shard, epoch)
    join walclock.shards on shards.shard = any (array[lease.shard]) and shards.epoch = lease.epoch
    where shards.owner = $1 and shards.expires_at > clock_timestamp()
    for key share of shards
), wanted as materialized (
    select namespace, id, epoch
    from unnest($4::text[], $5::text[], $6::smallint[], $7::bigint[]) as timer (namespace, id, shard, epoch)
    where ((shard, epoch) in (select shard, epoch from held)) is true
), found as materialized (
    select timers.ctid as place, wanted.epoch
    from wanted
    join walclock.timers on timers.namespace = any (array[wanted.namespace]) and timers.id = wanted.id
    where coalesce(timers.retry_at, timers.execute_at) <= $8
    for update of timers skip locked
), moment as materialized (
    select clock_timestamp() as now
), taken as materialized (
    delete from walclock.timers using found where timers.ctid = found.place
    returning timers.*, found.epoch, (select now from moment) as claimed_at
), noted as (
    insert into walclock.claims (claimed_at, namespaces, ids)
    select claimed_at, array_agg(namespace), array_agg(id) from taken group by claimed_at
    returning number
)
insert into walclock.runs as run (
    namespace, id, claimed_at, shard, epoch, execute_at, retry_at, due_at,
    callback_url, callback_method, callback_headers, callback_timeout_seconds, payload,
    retry_attempts_max, retry_duration, retry_interval_first, retry_multiplier, retry_interval_max,
    attempts, first_attempt_at, last_error, created_at, updated_at, adopted_by, noted
)
select
    namespace, id, claimed_at, shard, epoch, execute_at, retry_at, due_at,
    callback_url, callback_method, callback_headers, callback_timeout_seconds, payload,
    retry_attempts_max, retry_duration, retry_interval_first, retry_multiplier, retry_interval_max,
    least(attempts, 2147483646) + 1, coalesce(first_attempt_at, claimed_at), last_error, created_at, updated_at, $1, true
from taken
returning
    namespace, id, claimed_at, epoch, execute_at, retry_at,
    callback_url, callback_method, callback_headers, callback_timeout_seconds, payload,
    retry_attempts_max, retry_duration, retry_interval_first, retry_multiplier, retry_interval_max,
    attempts, first_attempt_at, last_error, created_at, updated_at, adoptions,
    (select secrets from walclock.namespaces where name = $9) as secrets, (select number from noted) as claim
