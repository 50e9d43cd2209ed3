-- One round of a dispatcher with the leases: announces it, gives up, renews and acquires.
-- $1 owner text, $2 time to live interval, $3 to $5 the leases to give up: shards smallint[], epochs bigint[] and anew
-- boolean[] (true: to hold the shard on in a new epoch; false: for others),
-- $6 shards wanted bigint: what is held already is kept beyond it; who wants none is about to leave, and does not count
-- $7 host text, $8 pid integer, for people
--
-- Claims and settles lock their leases `for key share`. A renewal does not wait for that and is not waited for. Whatever
-- ends a holding locks `for update`, and passes over what they hold: were it to wait for one of them, which may take as long
-- as a statement may, all the other leases would run out meanwhile. What was passed over is renewed in its old epoch, and
-- whoever wants it given up sees that and asks again.
-- The moment is read once, before any wait: what is granted never lasts longer than the owner believes.
--
-- No lease lies farther ahead than it lasts, unless the clock was set back since, or a standby whose clock is behind was
-- promoted. Those of others are cut to what lasts from now on: who lives renews it long before, and what the dead have left
-- is free after one life, not after the whole step. That comes last, when everything of the asker's own is locked: two
-- askers that cut each other's leases never wait for each other. A lease that is being renewed at this moment is judged
-- by its new row and by the clock as it is then.
with moment as materialized (
    select clock_timestamp() as now
), announced as (
    insert into walclock.dispatchers (owner, started_at, expires_at, host, pid)
    select $1, now, case when $6::bigint > 0 then now + $2::interval else now end, $7, $8 from moment
    on conflict (owner) do update set expires_at = excluded.expires_at
    returning started_at
), dead as materialized (
    select dispatchers.owner from walclock.dispatchers, moment
    where dispatchers.expires_at < now - interval '1 hour' and dispatchers.owner <> $1
    for update of dispatchers skip locked
), forgotten as (
    delete from walclock.dispatchers using dead where dispatchers.owner = dead.owner
), given_up as materialized (
    select shards.shard, lease.anew
    from unnest($3::smallint[], $4::bigint[], $5::boolean[]) as lease (shard, epoch, anew)
    join walclock.shards on shards.shard = lease.shard and shards.epoch = lease.epoch
    where shards.owner = $1
    for update of shards skip locked
), freed as (
    update walclock.shards set owner = null, expires_at = '-infinity'
    from given_up where shards.shard = given_up.shard and not given_up.anew
), kept as materialized (
    select shards.shard, given_up.anew is true as anew
    from walclock.shards cross join moment left join given_up on given_up.shard = shards.shard
    where shards.owner = $1 and shards.expires_at > now and given_up.anew is distinct from false
    for no key update of shards
), renewed as (
    update walclock.shards set expires_at = now + $2::interval, epoch = epoch + kept.anew::integer
    from kept, moment where shards.shard = kept.shard
    returning shards.shard, shards.epoch
), free as materialized (
    select shards.shard from walclock.shards, moment
    where shards.expires_at <= now
      and not exists (select from given_up where given_up.shard = shards.shard and not given_up.anew)
    order by shards.shard
    limit (select greatest($6::bigint - count(*), 0) from kept)
    for update of shards skip locked
), acquired as (
    update walclock.shards set owner = $1, epoch = epoch + 1, expires_at = now + $2::interval
    from free, moment where shards.shard = free.shard
    returning shards.shard, shards.epoch
), ahead as materialized (
    select shards.shard from walclock.shards
    where shards.owner <> $1 and shards.expires_at > clock_timestamp() + $2::interval
      and (select count(*) from announced) + (select count(*) from renewed) + (select count(*) from acquired) >= 0
    for no key update of shards skip locked
), cut as (
    update walclock.shards set expires_at = clock_timestamp() + $2::interval
    from ahead where shards.shard = ahead.shard
), owners_ahead as materialized (
    select dispatchers.owner from walclock.dispatchers
    where dispatchers.owner <> $1 and dispatchers.expires_at > clock_timestamp() + $2::interval
      and (select count(*) from announced) + (select count(*) from renewed) + (select count(*) from acquired) >= 0
    for no key update of dispatchers skip locked
), owners_cut as (
    update walclock.dispatchers set expires_at = clock_timestamp() + $2::interval
    from owners_ahead where dispatchers.owner = owners_ahead.owner
), holding as (
    select shard, epoch from renewed union all select shard, epoch from acquired
)
select now,
       (select 1 + count(*) from walclock.dispatchers d where d.expires_at > now and d.owner <> $1) as owners_alive,
       (select count(*) from announced a
        join walclock.dispatchers d on (d.started_at, d.owner) < (a.started_at, $1)
        where d.expires_at > now and d.owner <> $1) as rank,
       (select coalesce(array_agg(shard order by shard), '{}') from holding) as shards,
       (select coalesce(array_agg(epoch order by shard), '{}') from holding) as epochs,
       (select least(min(d.expires_at), now + $2::interval) - now from walclock.dispatchers d
        where d.expires_at > now and d.owner <> $1) as others_left
from moment
