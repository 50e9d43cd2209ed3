-- Where the WAL ends (on a standby, how far it is replayed), how much of it the slot keeps, and how much more may be
-- written before the slot is lost: null where nothing bounds it. The last two are null where there is no slot.
-- $1 slot name text
select here::text,
       -- A slot that is lost keeps nothing.
       case when slot_name is not null then coalesce((here - restart_lsn)::int8, 0) end,
       case
           when wal_status in ('unreserved', 'lost') then 0
           when bound < 0 then null
           -- There the column counts from the WAL that the server writes itself, which is none.
           when standby then bound - (here - restart_lsn)::int8
           else safe_wal_size
       end
from (select pg_is_in_recovery() as standby,
             case
                 when pg_is_in_recovery() then coalesce(pg_last_wal_replay_lsn(), '0/0')
                 else pg_current_wal_lsn()
             end as here,
             (select setting::int8 * 1024 * 1024 from pg_settings where name = 'max_slot_wal_keep_size') as bound
     ) as server
left join pg_replication_slots on slot_name = $1::text
