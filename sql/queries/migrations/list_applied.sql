-- The migrations that this database has had, oldest first.
select version, name, checksum
from walclock.walclock_migrations
order by version
