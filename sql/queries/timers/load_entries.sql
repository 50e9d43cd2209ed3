-- The timers of some shards by due moment, behind an entry and up to a moment.
-- $1 shards bytea of 32 bytes (bit n from the lowest of each byte on is shard n), the entry: $2 due_at timestamptz,
-- $3 namespace text, $4 id text, $5 until timestamptz, $6 limit bigint
select due_at, namespace, id
from walclock.timers
where (due_at, namespace || E'\x01' || id) > ($2, $3::text || E'\x01' || $4::text)
  and due_at <= $5
  and get_bit($1::bytea, shard) = 1
order by due_at, namespace || E'\x01' || id
limit $6
