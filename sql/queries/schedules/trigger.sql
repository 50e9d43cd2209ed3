-- Fires a schedule now; returns the id of the timer, and no row where there is no schedule of that name.
-- $1 namespace text, $2 id text
select walclock.trigger_schedule(namespace, id)
from walclock.schedules
where namespace = $1 and id = $2
