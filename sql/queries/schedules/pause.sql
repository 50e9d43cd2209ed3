-- Pauses a schedule, or lets it go on; no row where there is none of that name.
-- $1 namespace text, $2 id text, $3 paused boolean
update walclock.schedules set paused = $3
where namespace = $1 and id = $2
returning id
