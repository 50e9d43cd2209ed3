-- The state of a replication slot; no row where there is none.
-- The last column says why it is lost. Before PostgreSQL 17 there is no such column, hence the way by JSON.
-- $1 slot name text
select plugin::text, database::text, active_pid, wal_status, confirmed_flush_lsn::text,
       to_jsonb(slot) ->> 'invalidation_reason'
from pg_replication_slots as slot where slot_name = $1::text
