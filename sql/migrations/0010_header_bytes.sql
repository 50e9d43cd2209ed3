-- As before, but headers whose text is short are not added up: their names and values cannot be longer than that. To begin to add
-- up costs an INSERT of one timer a third of all that it takes besides its commit.
alter table walclock.timers
    drop constraint timers_callback_headers_size,
    add constraint timers_callback_headers_size
        check (octet_length(callback_headers::text) <= 8192 or retry_at is not null
            or walclock.header_bytes(callback_headers) <= 8192)
        not valid;

alter table walclock.schedules
    drop constraint schedules_callback_headers_size,
    add constraint schedules_callback_headers_size
        check (octet_length(callback_headers::text) <= 8192 or error is not null
            or walclock.header_bytes(callback_headers) <= 8192)
        not valid;
