-- The dispatchers that are alive, or were a short time ago, those that began first in front.
select owner, started_at, expires_at, host, pid
from walclock.dispatchers
order by started_at, owner
