-- Moves one timer to a run, as claim.sql moves many: to begin that statement costs a quarter more than to begin this one, and most
-- timers are claimed alone. From `taken` on they are to be the same, and a test compares what they make.
-- $1 owner text, its lease: $2 shard smallint and $3 epoch bigint, the timer: $4 namespace text and $5 id text, $6 until timestamptz
with taken as materialized (
    delete from walclock.timers
    where ctid = (
        select timers.ctid
        from walclock.shards, walclock.timers
        where shards.shard = $2 and shards.epoch = $3 and shards.owner = $1 and shards.expires_at > clock_timestamp()
          and timers.namespace = $4 and timers.id = $5 and coalesce(timers.retry_at, timers.execute_at) <= $6
        for key share of shards
        for update of timers skip locked
    )
    returning *, clock_timestamp() as claimed_at
), noted as (
    insert into walclock.claims (claimed_at, namespaces, ids)
    select claimed_at, array[namespace], array[id] from taken
    returning number
)
insert into walclock.runs as run (
    namespace, id, claimed_at, shard, epoch, execute_at, retry_at, due_at,
    callback_url, callback_method, callback_headers, callback_timeout_seconds, payload,
    retry_attempts_max, retry_duration, retry_interval_first, retry_multiplier, retry_interval_max,
    attempts, first_attempt_at, last_error, created_at, updated_at, adopted_by, noted
)
select
    namespace, id, claimed_at, shard, $3, execute_at, retry_at, due_at,
    callback_url, callback_method, callback_headers, callback_timeout_seconds, payload,
    retry_attempts_max, retry_duration, retry_interval_first, retry_multiplier, retry_interval_max,
    least(attempts, 2147483646) + 1, coalesce(first_attempt_at, claimed_at), last_error, created_at, updated_at, $1, true
from taken
returning
    namespace, id, claimed_at, epoch, execute_at, retry_at,
    callback_url, callback_method, callback_headers, callback_timeout_seconds, payload,
    retry_attempts_max, retry_duration, retry_interval_first, retry_multiplier, retry_interval_max,
    attempts, first_attempt_at, last_error, created_at, updated_at, adoptions,
    (select secrets from walclock.namespaces where name = $4) as secrets, (select number from noted) as claim
