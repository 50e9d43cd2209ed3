-- All shards with their leases, and how many callbacks are under way for each; and the server's clock.
select shards.shard, shards.owner, shards.epoch, shards.expires_at, coalesce(under_way.runs, 0) as runs,
       clock_timestamp() as now
from walclock.shards
left join (
    select shard, count(*) as runs from walclock.under_way group by shard
) as under_way using (shard)
order by shards.shard
