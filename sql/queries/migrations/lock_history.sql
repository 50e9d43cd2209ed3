-- Waits until no other process migrates this database. Held until the session ends.
select pg_advisory_lock(hashtextextended('walclock.migrate', 0))
