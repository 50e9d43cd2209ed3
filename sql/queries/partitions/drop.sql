-- Drops the days that the retention has passed; returns how many. Fails with lock_not_available while somebody reads one.
-- $1 retention interval
select walclock.drop_partitions($1)
