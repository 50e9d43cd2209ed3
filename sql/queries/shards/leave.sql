-- Gives up everything that a dispatcher holds: it is going away. Waits until its claims and settles are through.
-- $1 owner text
with held as materialized (
    select shard from walclock.shards where owner = $1 for update
), freed as (
    update walclock.shards set owner = null, expires_at = '-infinity'
    from held where shards.shard = held.shard
)
delete from walclock.dispatchers where owner = $1
