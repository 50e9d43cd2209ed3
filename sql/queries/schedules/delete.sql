-- Deletes a schedule; no row where there is none of that name.
-- $1 namespace text, $2 id text
delete from walclock.schedules
where namespace = $1 and id = $2
returning id
