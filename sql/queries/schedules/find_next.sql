-- The first moment that is near and has not come.
-- $1 shards bytea, a bit each, $2 now timestamptz, $3 until timestamptz
select next_at
from walclock.schedules
where not paused and error is null and next_at > $2 and next_at <= $3 and get_bit($1::bytea, shard) = 1
order by next_at
limit 1
