-- Which runs are under way, by the claims that made them, so that no index of walclock.runs has to follow their state: then a
-- settle updates its row where it stands, and leaves no index entries behind for a take-over to walk over.

-- What a claim took: a row as long as some of it is under way, in whatever epoch. A run that is under way stands in exactly one
-- of them; one that stands here may be over, or a timer again.
create table walclock.claims (
    number bigint generated always as identity primary key,
    claimed_at timestamptz not null,
    -- Names and ids of the runs, in pairs.
    namespaces text[] not null,
    ids text[] not null,
    constraint claims_pairs check (cardinality(namespaces) = cardinality(ids) and cardinality(ids) > 0)
);

-- Every row comes and goes within seconds.
alter table walclock.claims set (
    autovacuum_vacuum_scale_factor = 0.1, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0,
    toast.autovacuum_vacuum_scale_factor = 0.1, toast.autovacuum_vacuum_threshold = 1000, toast.autovacuum_vacuum_cost_delay = 0
);

-- Whether its claim stands in walclock.claims already. From here on nobody claims until this is committed.
alter table walclock.runs add column noted boolean not null default false;

insert into walclock.claims (claimed_at, namespaces, ids)
select claimed_at, array_agg(namespace), array_agg(id) from walclock.runs where state = 'running' group by claimed_at;

-- Notes a run that a walclock of before made, or somebody by hand.
create function walclock.note_run() returns trigger
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
begin
    insert into walclock.claims (claimed_at, namespaces, ids)
    values (new.claimed_at, array[new.namespace], array[new.id]);
    return new;
end $$;

revoke execute on function walclock.note_run from public;

create trigger note_run
    before insert on walclock.runs for each row
    when (not new.noted and new.answered_at is null)
    execute function walclock.note_run();

drop index walclock.runs_running_by_shard;

-- The runs under way. `offset 0` leaves a look-up of each in the primary key as the only way.
create view walclock.under_way as
select run.*
from walclock.claims
cross join lateral unnest(claims.namespaces, claims.ids) as claimed (namespace, id)
cross join lateral (
    select namespace, id, claimed_at, shard, epoch
    from walclock.runs
    where runs.namespace = any (array[claimed.namespace]) and runs.id = claimed.id and runs.claimed_at = claims.claimed_at
      and answered_at is null
    offset 0
) as run;

-- As before, with more room for settles: each row's new version fits beside it.
create or replace function walclock.make_partitions(days_ahead integer default 7) returns integer
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
declare
    day date;
    made integer := 0;
    parent text;
    name text;
begin
    perform pg_advisory_xact_lock(hashtextextended('walclock.partitions', 0));
    for day in select (clock_timestamp() at time zone 'UTC')::date + generate_series(-1, days_ahead) loop
        foreach parent in array array['runs', 'attempts'] loop
            name := parent || '_' || to_char(day, 'YYYYMMDD');
            continue when to_regclass(format('walclock.%I', name)) is not null;
            execute format('create table walclock.%I (like walclock.%I including defaults including constraints)'
                           ' with (fillfactor = %s)', name, parent, case parent when 'runs' then 50 else 100 end);
            execute format('alter table walclock.%I attach partition walclock.%I for values from (%L) to (%L)',
                           parent, name, to_char(day, 'YYYY-MM-DD 00:00:00+00'), to_char(day + 1, 'YYYY-MM-DD 00:00:00+00'));
            made := made + 1;
        end loop;
    end loop;
    return made;
end $$;

do $$
declare
    part regclass;
begin
    for part in select inhrelid::regclass from pg_inherits where inhparent = 'walclock.runs'::regclass loop
        execute format('alter table %s set (fillfactor = 50)', part);
    end loop;
end $$;

-- As before, but what is under way is looked for among the claims.
create or replace function walclock.drop_partitions(retention interval) returns integer
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp
    set lock_timeout = '100ms' as $$
declare
    day date;
    dropped integer := 0;
    name text;
begin
    perform pg_advisory_xact_lock(hashtextextended('walclock.partitions', 0));
    for name in
        select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'walclock.runs'::regclass and c.relname ~ '^runs_[0-9]{8}$' order by c.relname
    loop
        day := to_date(right(name, 8), 'YYYYMMDD');
        continue when (day + 1)::timestamp at time zone 'UTC' > clock_timestamp() - retention;
        continue when exists (
            select from walclock.under_way
            where claimed_at >= day::timestamp at time zone 'UTC' and claimed_at < (day + 1)::timestamp at time zone 'UTC'
        );
        execute format('drop table walclock.%I', name);
        execute format('drop table if exists walclock.%I', 'attempts_' || right(name, 8));
        dropped := dropped + 1;
    end loop;
    return dropped;
end $$;
