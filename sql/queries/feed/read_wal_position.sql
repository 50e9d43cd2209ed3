-- Where the WAL of this primary ends.
select pg_current_wal_lsn()::text
