-- What the server and the role allow.
select current_setting('server_version_num')::integer as version_number,
       current_setting('server_version') as version,
       (select pg_encoding_to_char(encoding) from pg_database where datname = current_database()) as encoding,
       current_setting('wal_level') as wal_level,
       (select count(*) from pg_replication_slots) as slots,
       current_setting('max_replication_slots')::bigint as slots_max,
       (select count(*) from pg_stat_replication) as walsenders,
       current_setting('max_wal_senders')::bigint as walsenders_max,
       current_setting('max_slot_wal_keep_size') as slot_wal_keep_size,
       quote_ident(current_user) as role,
       (select rolreplication or rolsuper from pg_roles where rolname = current_user)
           or exists (select from pg_roles where rolname = 'rds_replication' and pg_has_role(oid, 'member')) as replicates
