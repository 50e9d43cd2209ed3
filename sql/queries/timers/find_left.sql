-- Where the timers stand that a claim did not take: those that are still there, in shards that the caller holds.
-- $1 owner text, its leases: $2 shards smallint[] and $3 epochs bigint[], the timers: $4 namespaces text[], $5 ids text[],
-- $6 shards smallint[], $7 epochs bigint[]
-- On `= any (array[…])` and the spelt out due_at see claim.sql.
with held as materialized (
    select shards.shard, shards.epoch
    from unnest($2::smallint[], $3::bigint[]) as lease (shard, epoch)
    join walclock.shards on shards.shard = any (array[lease.shard]) and shards.epoch = lease.epoch
    where shards.owner = $1 and shards.expires_at > clock_timestamp()
)
select coalesce(timers.retry_at, timers.execute_at) as due_at, timers.namespace, timers.id
from unnest($4::text[], $5::text[], $6::smallint[], $7::bigint[]) as wanted (namespace, id, shard, epoch)
join walclock.timers on timers.namespace = any (array[wanted.namespace]) and timers.id = wanted.id
where ((wanted.shard, wanted.epoch) in (select shard, epoch from held)) is true
