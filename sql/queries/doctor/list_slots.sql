-- The logical slots of this database, with the WAL in bytes that each retains.
select slot_name::text as name,
       quote_literal(slot_name) as literal,
       active,
       coalesce(wal_status, 'lost') = 'lost' as lost,
       coalesce(to_jsonb(slot) ->> 'invalidation_reason', 'wal_removed') as reason,
       coalesce(pg_wal_lsn_diff(
           case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end, restart_lsn
       ), 0)::bigint as retained_bytes
from pg_replication_slots as slot
where slot_type = 'logical' and database = current_database()
order by slot_name
