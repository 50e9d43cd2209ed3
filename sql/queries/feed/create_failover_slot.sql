-- The same from PostgreSQL 17 on: the slot follows to a standby that synchronizes slots.
-- $1 slot name text
select lsn::text from pg_create_logical_replication_slot($1::text, 'pgoutput', failover => true)
