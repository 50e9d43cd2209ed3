-- The two publications and what is wrong with them; the partitions that are there from tomorrow on.
select exists (select from pg_publication where pubname = 'walclock') as has_general,
       exists (
           select from pg_publication p join pg_publication_rel r on r.prpubid = p.oid
           where p.pubname = 'walclock_timers' and r.prrelid = 'walclock.timers'::regclass and p.pubinsert and p.pubupdate
       ) as has_timers,
       (
           select count(*) from pg_inherits i join pg_class c on c.oid = i.inhrelid
           where i.inhparent = 'walclock.runs'::regclass
             and c.relname > 'runs_' || to_char(clock_timestamp() at time zone 'UTC', 'YYYYMMDD')
       ) as days_ahead
