-- What timers and schedules have in common is checked by one function, which says what is wrong with which value and what is
-- allowed. Each statement reads all check constraints of its table anew: two dozen of them cost an INSERT of one timer as much as all
-- else that it does besides its commit.

-- True, or an error under the constraint's name of before. A row that is lenient must be able to move, though a rule came after it:
-- a timer that has been claimed comes back with its retry_at, and a schedule that makes no timers is told why.
create function walclock.is_fit(
    relation text, lenient boolean, namespace text, id text, execute_at timestamptz,
    callback_url text, callback_method text, callback_headers jsonb, callback_timeout_seconds smallint, payload json,
    retry_attempts_max integer, retry_duration interval, retry_interval_first interval,
    retry_multiplier double precision, retry_interval_max interval
) returns boolean
    language plpgsql immutable parallel safe as $$
declare
    -- The column, the rule, and what is allowed.
    fault text[] := case
        when octet_length(namespace) not between 1 and 255
            then array['namespace', 'namespace_length', 'must have 1 to 255 bytes']
        when namespace ~ '[[:cntrl:]]'
            then array['namespace', 'namespace_characters', 'must have no control characters']
        when char_length(id) not between 1 and 255
            then array['id', 'id_length', 'must have 1 to 255 characters']
        when id ~ '[[:cntrl:]]'
            then array['id', 'id_characters', 'must have no control characters']
        -- The years that RFC 3339 can write.
        when execute_at < '0001-01-01 00:00:00+00' or execute_at >= '10000-01-01 00:00:00+00'
            then array['execute_at', 'execute_at_range', 'must be from the year 1 to the year 9999']
        when octet_length(callback_url) > 2048
            then array['callback_url', 'callback_url_length', 'must have at most 2048 bytes']
        when callback_url !~* '^https?://[^/?#@[:space:]]+([/?#][^[:space:]]*)?$'
            then array['callback_url', 'callback_url_form',
                'must be an absolute URL of http or https, without spaces and without user information']
        -- Only what has a colon behind the scheme is looked at: a name without one has no port.
        when strpos(substr(callback_url, 8), ':') > 0 and not lenient
            and callback_url !~* ('^https?://(\[[0-9a-f:.]+\]|[^]:[/?#\\]+)(:(0*([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}'
                || '|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?)?([/?#\\]|$)')
            then array['callback_url', 'callback_url_host_and_port', 'must have a host, and a port from 1 to 65535 or none']
        when callback_method not in ('GET', 'POST', 'PUT', 'PATCH', 'DELETE')
            then array['callback_method', 'callback_method_known', 'must be GET, POST, PUT, PATCH or DELETE']
        when callback_timeout_seconds not between 1 and 300
            then array['callback_timeout_seconds', 'callback_timeout_range', 'must be from 1 to 300']
        when octet_length(payload::text) > 102400
            then array['payload', 'payload_length', 'must have at most 102400 bytes']
        when retry_attempts_max < 1
            then array['retry_attempts_max', 'retry_attempts_max_range', 'must be at least 1, or null']
        when retry_duration not between '0' and '100 years'
            then array['retry_duration', 'retry_duration_range', 'must be from 0 to 100 years']
        when retry_interval_first not between '1 millisecond' and '100 years'
            then array['retry_interval_first', 'retry_interval_first_range', 'must be from 1 millisecond to 100 years']
        when retry_multiplier not between 1.0 and 100.0
            then array['retry_multiplier', 'retry_multiplier_range', 'must be from 1.0 to 100.0']
        when retry_interval_max not between '1 millisecond' and '100 years'
            then array['retry_interval_max', 'retry_interval_max_range', 'must be from 1 millisecond to 100 years']
        when callback_headers = '{}'
            then null
        when jsonb_typeof(callback_headers) <> 'object'
            then array['callback_headers', 'callback_headers_object', 'must be an object of names and values']
        when jsonb_array_length(jsonb_path_query_array(callback_headers, '$.keyvalue()', silent => true)) > 32
            then array['callback_headers', 'callback_headers_count', 'must have at most 32 names']
        when octet_length(callback_headers::text) > 16384
            then array['callback_headers', 'callback_headers_length', 'must have at most 16384 bytes as JSON']
        when jsonb_path_exists(callback_headers,
                '$.keyvalue() ? (!(@.key like_regex "^[-!#$%&''*+.^_`|~0-9A-Za-z]+$"))', silent => true)
            then array['callback_headers', 'callback_headers_names',
                'must have names of letters, digits and any of !#$%&''*+-.^_`|~']
        when jsonb_path_exists(callback_headers,
                'strict $.* ? (@.type() != "string" || !(@ like_regex "^[^\\x01-\\x08\\x0a-\\x1f\\x7f]*$"))', silent => true)
            then array['callback_headers', 'callback_headers_values', 'must have strings without control characters as values']
        when lenient
            then null
        -- What belongs to the connection or to the server.
        when jsonb_path_exists(callback_headers, '$.keyvalue() ? (@.key like_regex
                "^(connection|content-length|expect|host|keep-alive|proxy-.*|te|trailer|transfer-encoding|upgrade|walclock-.*|webhook-.*)$"
                flag "i")', silent => true)
            then array['callback_headers', 'callback_headers_reserved',
                'must not have Connection, Content-Length, Expect, Host, Keep-Alive, Proxy-*, TE, Trailer, Transfer-Encoding, '
                    || 'Upgrade, walclock-* or webhook-*']
        -- Names and values cannot be longer than what they are written in.
        when octet_length(callback_headers::text) > 8192 and walclock.header_bytes(callback_headers) > 8192
            then array['callback_headers', 'callback_headers_size', 'must have at most 8192 bytes of names and values']
    end;
begin
    if fault is null then
        return true;
    end if;
    raise check_violation using
        schema = 'walclock', table = relation, column = fault[1], constraint = relation || '_' || fault[2],
        message = format('%s %s, but is %s (%s %s of namespace %s)', fault[1], fault[3], left((jsonb_build_object(
            'namespace', namespace, 'id', id, 'execute_at', execute_at, 'callback_url', callback_url,
            'callback_method', callback_method, 'callback_headers', callback_headers,
            'callback_timeout_seconds', callback_timeout_seconds, 'payload', payload::text,
            'retry_attempts_max', retry_attempts_max, 'retry_duration', retry_duration, 'retry_interval_first', retry_interval_first,
            'retry_multiplier', retry_multiplier, 'retry_interval_max', retry_interval_max
        ) -> fault[1])::text, 200), rtrim(relation, 's'), to_jsonb(left(id, 255)), to_jsonb(left(namespace, 255)));
end $$;

-- Whoever may write a row may have it checked, also where the owner's default privileges give nobody any function.
grant execute on function walclock.is_fit, walclock.header_bytes to public;

do $$
declare
    relation text;
    lenient text;
    moment text;
    rule text;
begin
    for relation, lenient, moment in
        values ('timers', 'retry_at is not null', 'execute_at'), ('schedules', 'error is not null', 'null')
    loop
        foreach rule in array array[
            'namespace_length', 'namespace_characters', 'id_characters',
            'callback_url_length', 'callback_url_form', 'callback_url_host_and_port', 'callback_method_known',
            'callback_headers_object', 'callback_headers_count', 'callback_headers_length', 'callback_headers_names',
            'callback_headers_values', 'callback_headers_reserved', 'callback_headers_size', 'callback_timeout_range',
            'payload_length', 'retry_attempts_max_range', 'retry_duration_range', 'retry_interval_first_range',
            'retry_multiplier_range', 'retry_interval_max_range'
        ] loop
            execute format('alter table walclock.%I drop constraint if exists %I', relation, relation || '_' || rule);
        end loop;
        execute format('alter table walclock.%I add constraint %I check (walclock.is_fit(%L, %s, namespace, id, %s,'
                       ' callback_url, callback_method, callback_headers, callback_timeout_seconds, payload,'
                       ' retry_attempts_max, retry_duration, retry_interval_first, retry_multiplier, retry_interval_max)) not valid',
                       relation, relation || '_fit', relation, lenient, moment);
    end loop;
end $$;

-- A schedule's id is shorter.
alter table walclock.timers drop constraint if exists timers_id_length, drop constraint if exists timers_execute_at_range;
