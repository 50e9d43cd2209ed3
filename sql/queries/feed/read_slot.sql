-- The state of a replication slot; no row where there is none.
-- $1 slot name text
select plugin::text, database::text, active_pid, wal_status, confirmed_flush_lsn::text
from pg_replication_slots where slot_name = $1::text
