-- The secrets of the namespaces that have some.
-- $1 names text[]
select name, secrets
from walclock.namespaces
where name = any ($1) and cardinality(secrets) > 0
