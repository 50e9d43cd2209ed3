-- Which cluster this is, whether it is a standby, and the timeline that it writes where it is none.
select system_identifier, pg_is_in_recovery(),
       case when not pg_is_in_recovery() then ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int8 end
from pg_control_system()
