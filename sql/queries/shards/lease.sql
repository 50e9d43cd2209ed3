-- One round of a dispatcher with the leases: announces it, gives up, renews and acquires.
-- $1 owner text, $2 time to live interval, $3 and $4 the leases to give up: shards smallint[] and epochs bigint[],
-- $5 shards wanted bigint: what is held already is kept beyond it; who wants none is about to leave, and does not count
-- $6 host text, $7 pid integer, for people
--
-- Claims and settles lock their leases `for key share`. A renewal does not wait for that and is not waited for; whatever
-- ends a holding locks `for update` and so waits until they are through, or takes another shard.
-- The moment is read once, before any wait: what is granted never lasts longer than the owner believes.
with moment as materialized (
    select clock_timestamp() as now
), announced as (
    insert into walclock.dispatchers (owner, started_at, expires_at, host, pid)
    select $1, now, case when $5::bigint > 0 then now + $2::interval else now end, $6, $7 from moment
    on conflict (owner) do update set expires_at = excluded.expires_at
    returning started_at
), dead as materialized (
    select dispatchers.owner from walclock.dispatchers, moment
    where dispatchers.expires_at < now - interval '1 hour' and dispatchers.owner <> $1
    for update of dispatchers skip locked
), forgotten as (
    delete from walclock.dispatchers using dead where dispatchers.owner = dead.owner
), given_up as materialized (
    select shards.shard
    from unnest($3::smallint[], $4::bigint[]) as lease (shard, epoch)
    join walclock.shards on shards.shard = lease.shard and shards.epoch = lease.epoch
    where shards.owner = $1
    for update of shards
), freed as (
    update walclock.shards set owner = null, expires_at = '-infinity'
    from given_up where shards.shard = given_up.shard
), kept as materialized (
    select shards.shard from walclock.shards, moment
    where shards.owner = $1 and shards.expires_at > now
      and not exists (select from given_up where given_up.shard = shards.shard)
    for no key update of shards
), renewed as (
    update walclock.shards set expires_at = now + $2::interval
    from kept, moment where shards.shard = kept.shard
    returning shards.shard, shards.epoch
), free as materialized (
    select shards.shard from walclock.shards, moment
    where shards.expires_at <= now
      and not exists (select from given_up where given_up.shard = shards.shard)
    order by shards.shard
    limit (select greatest($5::bigint - count(*), 0) from kept)
    for update of shards skip locked
), acquired as (
    update walclock.shards set owner = $1, epoch = epoch + 1, expires_at = now + $2::interval
    from free, moment where shards.shard = free.shard
    returning shards.shard, shards.epoch
), holding as (
    select shard, epoch from renewed union all select shard, epoch from acquired
)
select now,
       (select 1 + count(*) from walclock.dispatchers d where d.expires_at > now and d.owner <> $1) as owners_alive,
       (select count(*) from announced a
        join walclock.dispatchers d on (d.started_at, d.owner) < (a.started_at, $1)
        where d.expires_at > now and d.owner <> $1) as rank,
       (select coalesce(array_agg(shard order by shard), '{}') from holding) as shards,
       (select coalesce(array_agg(epoch order by shard), '{}') from holding) as epochs
from moment
