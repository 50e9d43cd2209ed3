-- A client that moves a timer in plain SQL means the new moment, also where the timer waits for another attempt or its receiver
-- is spared; its retry_at stood for the moment before. As over HTTP, the attempts begin anew. Who writes retry_at as well has
-- said what it is to be.
create function walclock.follow_move() returns trigger
    language plpgsql
    set search_path = pg_catalog, pg_temp as $$
begin
    new.retry_at := null;
    new.attempts := 0;
    new.first_attempt_at := null;
    new.last_error := null;
    return new;
end $$;

-- The dispatcher inserts and deletes, and is never asked.
create trigger follow_move
    before update of execute_at on walclock.timers for each row
    when (old.retry_at is not null and new.retry_at = old.retry_at and new.execute_at <> old.execute_at)
    execute function walclock.follow_move();
