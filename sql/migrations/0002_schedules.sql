-- Schedules, and what became of each of their moments.

-- What recurs. A plain insert of namespace, id, cron and callback_url is enough; a plain update is followed.
create table walclock.schedules (
    namespace text collate "C" not null
        constraint schedules_namespace_length check (octet_length(namespace) between 1 and 255)
        constraint schedules_namespace_characters check (namespace !~ '[[:cntrl:]]'),
    -- With '@' and a moment behind it, it is the id of a timer.
    id text collate "C" not null
        constraint schedules_id_length check (char_length(id) between 1 and 200)
        constraint schedules_id_characters check (id !~ '[[:cntrl:]]'),
    -- One of the two. What is wrong with an expression or a time zone is told in the column error.
    cron text
        constraint schedules_cron_length check (octet_length(cron) <= 512),
    every interval
        constraint schedules_every_range check (every between '1 second' and '100 years'),
    time_zone text not null default 'UTC'
        constraint schedules_time_zone_length check (octet_length(time_zone) <= 255),
    -- No moment is earlier; of an interval it is the first.
    start_at timestamptz
        constraint schedules_start_at_range
            check (start_at >= '0001-01-01 00:00:00+00' and start_at < '10000-01-01 00:00:00+00'),
    -- No moment is later.
    end_at timestamptz
        constraint schedules_end_at_range
            check (end_at >= '0001-01-01 00:00:00+00' and end_at < '10000-01-01 00:00:00+00'),
    jitter interval not null default '0'
        constraint schedules_jitter_range check (jitter between '0' and '1 day'),
    overlap text not null default 'skip'
        constraint schedules_overlap_known check (overlap in ('skip', 'allow', 'buffer_one', 'cancel_other')),
    catch_up text not null default 'last'
        constraint schedules_catch_up_known check (catch_up in ('none', 'last', 'all')),
    catch_up_window interval not null default '1 day'
        constraint schedules_catch_up_window_range check (catch_up_window between '0' and '100 years'),
    catch_up_max integer not null default 100
        constraint schedules_catch_up_max_range check (catch_up_max between 1 and 1000),
    paused boolean not null default false,
    -- What its timers get, with the same rules.
    callback_url text not null
        constraint schedules_callback_url_length check (octet_length(callback_url) <= 2048)
        constraint schedules_callback_url_form check (callback_url ~* '^https?://[^/?#@[:space:]]+([/?#][^[:space:]]*)?$'),
    callback_method text not null default 'POST'
        constraint schedules_callback_method_known check (callback_method in ('GET', 'POST', 'PUT', 'PATCH', 'DELETE')),
    callback_headers jsonb not null default '{}'
        constraint schedules_callback_headers_object check (jsonb_typeof(callback_headers) = 'object')
        constraint schedules_callback_headers_count
            check (jsonb_array_length(jsonb_path_query_array(callback_headers, '$.keyvalue()', silent => true)) <= 32)
        constraint schedules_callback_headers_length check (octet_length(callback_headers::text) <= 16384)
        constraint schedules_callback_headers_names
            check (not jsonb_path_exists(callback_headers,
                '$.keyvalue() ? (!(@.key like_regex "^[-!#$%&''*+.^_`|~0-9A-Za-z]+$"))', silent => true))
        constraint schedules_callback_headers_values
            check (not jsonb_path_exists(callback_headers,
                'strict $.* ? (@.type() != "string" || !(@ like_regex "^[^\\x01-\\x08\\x0a-\\x1f\\x7f]*$"))', silent => true)),
    callback_timeout_seconds smallint not null default 30
        constraint schedules_callback_timeout_range check (callback_timeout_seconds between 1 and 300),
    payload json
        constraint schedules_payload_length check (octet_length(payload::text) <= 102400),
    retry_attempts_max integer
        constraint schedules_retry_attempts_max_range check (retry_attempts_max >= 1),
    retry_duration interval not null default '24 hours'
        constraint schedules_retry_duration_range check (retry_duration between '0' and '100 years'),
    retry_interval_first interval not null default '1 second'
        constraint schedules_retry_interval_first_range
            check (retry_interval_first between '1 millisecond' and '100 years'),
    retry_multiplier double precision not null default 2.0
        constraint schedules_retry_multiplier_range check (retry_multiplier between 1.0 and 100.0),
    retry_interval_max interval not null default '5 minutes'
        constraint schedules_retry_interval_max_range check (retry_interval_max between '1 millisecond' and '100 years'),
    -- The server's own. The first moment that is not settled yet: -infinity until it is known, infinity where there is none.
    next_at timestamptz not null default '-infinity',
    -- The moment that waits for the last callback to be over.
    buffered_at timestamptz,
    -- Why nothing is made of it, until it is changed.
    error text
        constraint schedules_error_length check (octet_length(error) <= 1024),
    -- Counts every change: what was planned on an older one is thrown away.
    revision bigint not null default 0,
    shard smallint not null generated always as ((hashtextextended(namespace || '/' || id, 0) & 255)::smallint) stored,
    -- When it was last said when it recurs: moments up to here are no concern of it.
    changed_at timestamptz not null default now(),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint schedules_cron_or_every check ((cron is null) <> (every is null)),
    constraint schedules_end_follows_start check (end_at >= start_at),
    primary key (namespace, id)
) with (fillfactor = 70);

-- Every moment moves its row's entry.
alter table walclock.schedules set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
create index schedules_by_next on walclock.schedules (next_at) where not paused and error is null;
create index schedules_buffered on walclock.schedules (namespace, id)
    where buffered_at is not null and not paused and error is null;

-- What became of each moment: its key is why there is one run of each. Rows go when the retention has passed.
create table walclock.occurrences (
    namespace text collate "C" not null,
    schedule text collate "C" not null,
    scheduled_for timestamptz not null,
    -- fired: its timer was made. buffered: it waits for the one before. cancelled: the next one ended it.
    state text not null
        constraint occurrences_state_known check (state in ('fired', 'buffered', 'skipped', 'cancelled')),
    reason text,
    -- The last moment that the row stands for, where many were skipped at once.
    through_at timestamptz,
    timer_id text collate "C",
    made_at timestamptz not null default clock_timestamp(),
    constraint occurrences_fired_has_a_timer check (state not in ('fired', 'cancelled') or timer_id is not null),
    primary key (namespace, schedule, scheduled_for)
);

create index occurrences_fired on walclock.occurrences (namespace, schedule, scheduled_for) where state = 'fired';
create index occurrences_by_age on walclock.occurrences (scheduled_for);
alter table walclock.occurrences set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.1);

-- A run that must not be tried again: a later occurrence has taken its place.
alter table walclock.runs add column cancelled boolean not null default false;

-- The id of the timer of a schedule's moment: report@2030-01-01T09:00:00Z.
create function walclock.occurrence_id(schedule text, scheduled_for timestamptz) returns text
    language sql stable parallel safe
    set search_path = pg_catalog, pg_temp as $$
    select schedule || '@'
        || rtrim(rtrim(to_char(scheduled_for at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'), '0'), '.') || 'Z'
$$;

-- Whether a callback of the schedule is pending or under way, as far as its last 16 that were fired tell.
create function walclock.schedule_is_active(namespace text, id text) returns boolean
    language sql stable
    set search_path = pg_catalog, pg_temp as $$
    select exists (
        select from (
            select o.timer_id, o.made_at from walclock.occurrences as o
            where o.namespace = $1 and o.schedule = $2 and o.state = 'fired'
            order by o.scheduled_for desc limit 16
        ) as last
        where exists (select from walclock.timers as t where t.namespace = $1 and t.id = last.timer_id)
           or exists (
               select from walclock.runs as r
               where r.namespace = $1 and r.id = last.timer_id and r.answered_at is null
                 -- Days that cannot have it are not looked at.
                 and r.claimed_at >= last.made_at and r.claimed_at < now() + interval '1 day'
           )
    )
$$;

-- Follows what a client does to a schedule. What was made ahead of its moment is withdrawn, and made again from the new
-- definition. Acts as the owner of the tables, so that who may change a schedule need not be able to delete timers.
create function walclock.follow_schedule() returns trigger
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
declare
    withdrawn timestamptz;
begin
    if tg_op = 'INSERT' then
        new.next_at := '-infinity';
        new.buffered_at := null;
        new.error := null;
        new.revision := 0;
        new.changed_at := clock_timestamp();
        return new;
    end if;
    with ahead as (
        delete from walclock.timers as t using walclock.occurrences as o
        where o.namespace = old.namespace and o.schedule = old.id and o.state = 'fired'
          and o.scheduled_for > clock_timestamp()
          and t.namespace = o.namespace and t.id = o.timer_id and t.attempts = 0
        returning o.scheduled_for
    ), undone as (
        delete from walclock.occurrences as o using ahead
        where o.namespace = old.namespace and o.schedule = old.id and o.scheduled_for = ahead.scheduled_for
        returning o.scheduled_for
    )
    select min(scheduled_for) into withdrawn from undone;
    if tg_op = 'DELETE' then
        return old;
    end if;
    new.revision := old.revision + 1;
    new.error := null;
    if (new.namespace, new.id, new.cron, new.every, new.time_zone, new.start_at, new.end_at)
        is distinct from (old.namespace, old.id, old.cron, old.every, old.time_zone, old.start_at, old.end_at)
    then
        new.changed_at := clock_timestamp();
        new.next_at := '-infinity';
    elsif old.error is not null then
        new.next_at := '-infinity';
    else
        new.next_at := least(old.next_at, withdrawn);
    end if;
    new.updated_at := clock_timestamp();
    return new;
end $$;

revoke execute on function walclock.follow_schedule from public;

-- The columns that the server writes are not among these.
create trigger follow_schedule
    before insert or delete or update of
        namespace, id, cron, every, time_zone, start_at, end_at, jitter, overlap, catch_up, catch_up_window, catch_up_max,
        paused, callback_url, callback_method, callback_headers, callback_timeout_seconds, payload, retry_attempts_max,
        retry_duration, retry_interval_first, retry_multiplier, retry_interval_max
    on walclock.schedules for each row execute function walclock.follow_schedule();

-- Fires a schedule now, besides its moments, also where it is paused; returns the id of the timer.
create function walclock.trigger_schedule(namespace text, id text) returns text
    language plpgsql as $$
declare
    schedule walclock.schedules;
    fired walclock.occurrences;
begin
    -- Whatever was planned before this is planned anew: the callback may be in its way.
    update walclock.schedules as s set revision = s.revision + 1
    where s.namespace = trigger_schedule.namespace and s.id = trigger_schedule.id
    returning * into schedule;
    if not found then
        raise exception 'there is no schedule %/%', namespace, id using errcode = 'no_data_found';
    end if;
    insert into walclock.occurrences (namespace, schedule, scheduled_for, state, reason, timer_id)
    select schedule.namespace, schedule.id, at, 'fired', 'triggered', walclock.occurrence_id(schedule.id, at)
    from clock_timestamp() as at
    returning * into fired;
    insert into walclock.timers (
        namespace, id, execute_at, callback_url, callback_method, callback_headers, callback_timeout_seconds, payload,
        retry_attempts_max, retry_duration, retry_interval_first, retry_multiplier, retry_interval_max
    )
    values (
        schedule.namespace, fired.timer_id, fired.scheduled_for, schedule.callback_url, schedule.callback_method,
        schedule.callback_headers, schedule.callback_timeout_seconds, schedule.payload, schedule.retry_attempts_max,
        schedule.retry_duration, schedule.retry_interval_first, schedule.retry_multiplier, schedule.retry_interval_max
    );
    return fired.timer_id;
end $$;
