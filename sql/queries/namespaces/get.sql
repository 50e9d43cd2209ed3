-- A namespace without its secrets; no row where there is none of that name.
-- $1 name text
select name, cardinality(secrets) as secrets, created_at
from walclock.namespaces
where name = $1
