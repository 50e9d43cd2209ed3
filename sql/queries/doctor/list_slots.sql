-- The logical slots of this database, with the WAL in bytes that each retains.
select slot_name::text as name,
       quote_literal(slot_name) as literal,
       active,
       coalesce(wal_status, 'lost') = 'lost' as lost,
       coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint as retained_bytes
from pg_replication_slots
where slot_type = 'logical' and database = current_database()
order by slot_name
