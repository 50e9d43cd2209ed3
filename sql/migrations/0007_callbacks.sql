-- Follows what a client does to a schedule. What was made ahead of its moment is withdrawn, and made again from the new
-- definition. Acts as the owner of the tables, so that who may change a schedule need not be able to delete timers.
create or replace function walclock.follow_schedule() returns trigger
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
    else
        -- Also where it had an error: no moment before next_at is to be settled again, as what stood with it may be gone.
        new.next_at := least(old.next_at, withdrawn);
    end if;
    new.updated_at := clock_timestamp();
    return new;
end $$;

-- A callback that could only fail at its moment, and for good, is refused when it is written in plain SQL: as over HTTP, and as
-- the sender would. Rows that stand already stay. They must be able to move, too: a timer that has been claimed comes back with
-- its retry_at, and a schedule that makes no timers is told why.

-- Bytes of all names and values.
create function walclock.header_bytes(headers jsonb) returns bigint
    language sql immutable parallel safe
    set search_path = pg_catalog, pg_temp as $$
    select coalesce(sum(octet_length(key) + octet_length(value)), 0)
    from jsonb_each_text(case when jsonb_typeof(headers) = 'object' then headers end)
$$;

alter table walclock.timers
    -- Only what has a colon behind the scheme is looked at: a name without one has no port.
    add constraint timers_callback_url_host_and_port
        check (strpos(substr(callback_url, 8), ':') = 0 or retry_at is not null
            or callback_url ~* ('^https?://(\[[0-9a-f:.]+\]|[^]:[/?#\\]+)(:(0*([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}'
                || '|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?)?([/?#\\]|$)'))
        not valid,
    -- What belongs to the connection or to the server.
    add constraint timers_callback_headers_reserved
        check (callback_headers = '{}' or retry_at is not null
            or not jsonb_path_exists(callback_headers, '$.keyvalue() ? (@.key like_regex
                "^(connection|content-length|expect|host|keep-alive|proxy-.*|te|trailer|transfer-encoding|upgrade|walclock-.*|webhook-.*)$"
                flag "i")', silent => true))
        not valid,
    add constraint timers_callback_headers_size
        check (callback_headers = '{}' or retry_at is not null or walclock.header_bytes(callback_headers) <= 8192)
        not valid;

alter table walclock.schedules
    add constraint schedules_callback_url_host_and_port
        check (strpos(substr(callback_url, 8), ':') = 0 or error is not null
            or callback_url ~* ('^https?://(\[[0-9a-f:.]+\]|[^]:[/?#\\]+)(:(0*([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}'
                || '|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?)?([/?#\\]|$)'))
        not valid,
    add constraint schedules_callback_headers_reserved
        check (callback_headers = '{}' or error is not null
            or not jsonb_path_exists(callback_headers, '$.keyvalue() ? (@.key like_regex
                "^(connection|content-length|expect|host|keep-alive|proxy-.*|te|trailer|transfer-encoding|upgrade|walclock-.*|webhook-.*)$"
                flag "i")', silent => true))
        not valid,
    add constraint schedules_callback_headers_size
        check (callback_headers = '{}' or error is not null or walclock.header_bytes(callback_headers) <= 8192)
        not valid;
