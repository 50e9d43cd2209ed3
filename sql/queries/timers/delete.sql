-- Cancels a pending timer. Returns its id; no row where none of that name is pending.
-- $1 namespace text, $2 id text
delete from walclock.timers
where namespace = $1 and id = $2
returning id
