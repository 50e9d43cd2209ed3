-- Whether this database has ever been migrated.
select to_regclass('walclock.walclock_migrations') is not null
