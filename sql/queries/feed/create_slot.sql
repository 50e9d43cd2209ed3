-- Creates the slot and says where its stream begins. Waits for the transactions that are under way.
-- $1 slot name text
select lsn::text from pg_create_logical_replication_slot($1::text, 'pgoutput')
