-- As before, but a partition that somebody attached under a name of another form is his: it is left alone, and does not keep
-- the others from being dropped.
create or replace function walclock.drop_partitions(retention interval) returns integer
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
    set lock_timeout = '100ms' as $$
declare
    day date;
    dropped integer := 0;
    name text;
    running boolean;
begin
    perform pg_advisory_xact_lock(hashtextextended('walclock.partitions', 0));
    for name in
        select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'walclock.runs'::regclass and c.relname ~ '^runs_[0-9]{8}$' order by c.relname
    loop
        day := to_date(right(name, 8), 'YYYYMMDD');
        continue when (day + 1)::timestamp at time zone 'UTC' > clock_timestamp() - retention;
        execute format('select exists (select from walclock.%I where state = ''running'')', name) into running;
        continue when running;
        execute format('drop table walclock.%I', name);
        execute format('drop table if exists walclock.%I', 'attempts_' || right(name, 8));
        dropped := dropped + 1;
    end loop;
    return dropped;
end $$;
