-- Makes the daily partitions of the coming week; returns how many were missing.
select walclock.make_partitions()
