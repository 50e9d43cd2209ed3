-- Which of these tables are still there.
-- $1 tables oid[]
select oid from pg_class where oid = any ($1)
