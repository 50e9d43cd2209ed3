-- What the feed must know of the server before it streams.
-- The last column is where the 64-bit transaction ids stand; this form of it is there on every version.
select current_setting('server_version_num')::int4,
       current_setting('wal_level'),
       pg_is_in_recovery(),
       (select setting::int8 from pg_settings where name = 'wal_sender_timeout'),
       txid_snapshot_xmax(txid_current_snapshot())
