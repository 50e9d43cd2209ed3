-- Takes over the runs that an older epoch left running in the shards that the caller holds, and counts by how many
-- dispatchers that was done, one after the other.
-- $1 owner text, its leases: $2 shards smallint[] and $3 epochs bigint[], $4 limit bigint, $5 number of the claim to begin with bigint
--
-- Unwanted is what put_back.sql would not put back: what is cancelled, or has a newer timer of its id beside it.
-- What is under way is listed by the claims, the oldest of which come first. Of others' shards only the names are read: to look up a
-- run takes ten times as long.
-- On `= any (array[…])` see timers/claim.sql.
with held as materialized (
    select shards.shard, shards.epoch
    from unnest($2::smallint[], $3::bigint[]) as lease (shard, epoch)
    join walclock.shards on shards.shard = any (array[lease.shard]) and shards.epoch = lease.epoch
    where shards.owner = $1 and shards.expires_at > clock_timestamp()
    for key share of shards
), leases as materialized (
    select array_agg(shard) as shards, array_agg(epoch) as epochs from held
), listed as materialized (
    select claims.number, claims.claimed_at, run.namespace, run.id
    from walclock.claims
    cross join lateral unnest(claims.namespaces, claims.ids) as run (namespace, id)
    where claims.number >= $5
      and ((hashtextextended(run.namespace || '/' || run.id, 0) & 255)::smallint in (select shard from held)) is true
    order by claims.number
), left_behind as materialized (
    select listed.number, runs.namespace, runs.id, runs.claimed_at, leases.epochs[array_position(leases.shards, runs.shard)] as epoch
    from leases
    cross join listed
    join walclock.runs
        on runs.namespace = any (array[listed.namespace]) and runs.id = listed.id and runs.claimed_at = listed.claimed_at
    -- Null, and so not less, where the shard is not held.
    where runs.answered_at is null and runs.epoch < leases.epochs[array_position(leases.shards, runs.shard)]
    limit $4
    for no key update of runs
)
update walclock.runs as run set epoch = left_behind.epoch, adopted_by = $1,
    adoptions = run.adoptions + (run.adopted_by is distinct from $1)::integer
from left_behind
where run.namespace = any (array[left_behind.namespace]) and run.id = left_behind.id
  and run.claimed_at = left_behind.claimed_at
returning
    run.namespace, run.id, run.claimed_at, run.epoch, run.execute_at, run.retry_at,
    run.callback_url, run.callback_method, run.callback_headers, run.callback_timeout_seconds, run.payload,
    run.retry_attempts_max, run.retry_duration, run.retry_interval_first, run.retry_multiplier, run.retry_interval_max,
    run.attempts, run.first_attempt_at, run.last_error, run.created_at, run.updated_at, run.adoptions,
    run.cancelled
    or exists (
        select from walclock.timers as newer
        where newer.namespace = any (array[run.namespace]) and newer.id = run.id
    )
    or exists (
        select from walclock.runs as newer
        where newer.namespace = any (array[run.namespace]) and newer.id = run.id and newer.shard = run.shard
          and newer.claimed_at > run.claimed_at
    ) as unwanted,
    left_behind.number as claim
