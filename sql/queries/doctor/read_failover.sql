-- What decides whether the feed survives a promotion; null where this version does not have it.
-- Columns and settings that came with PostgreSQL 17 are asked for in ways that every version understands.
select pg_is_in_recovery() as standby,
       array(select slot_name::text from pg_replication_slots where slot_type = 'physical' order by 1) as physical,
       array(
           select slot_name::text from pg_replication_slots as slot
           where slot_type = 'logical' and database = current_database()
             and to_jsonb(slot) ->> 'failover' = 'false'
           order by 1
       ) as left_behind,
       array(
           select slot_name::text from pg_replication_slots as slot
           where slot_type = 'logical' and database = current_database()
             and to_jsonb(slot) ->> 'synced' = 'true' and not temporary
           order by 1
       ) as synced,
       nullif(current_setting('synchronized_standby_slots', true), '') as waited_for,
       current_setting('sync_replication_slots', true) as synchronizes,
       current_setting('hot_standby_feedback') as feedback
