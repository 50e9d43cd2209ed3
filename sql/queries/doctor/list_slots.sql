-- The logical slots of this database, with the WAL in bytes that each keeps, and how much more may be written before it is lost: null
-- where nothing bounds it.
select slot_name::text as name,
       quote_literal(slot_name) as literal,
       active,
       coalesce(wal_status, 'lost') = 'lost' as lost,
       coalesce(to_jsonb(slot) ->> 'invalidation_reason', 'wal_removed') as reason,
       kept,
       case
           when wal_status in ('unreserved', 'lost') then 0
           when bound < 0 then null
           -- There the column counts from the WAL that the server writes itself, which is none.
           when standby then bound - kept
           else safe_wal_size
       end as left_bytes
from (select pg_is_in_recovery() as standby,
             case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end as here,
             (select setting::int8 * 1024 * 1024 from pg_settings where name = 'max_slot_wal_keep_size') as bound
     ) as server
cross join pg_replication_slots as slot
cross join lateral (select coalesce(pg_wal_lsn_diff(here, restart_lsn), 0)::int8 as kept) as span
where slot_type = 'logical' and database = current_database()
order by slot_name
