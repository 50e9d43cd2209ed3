-- A page of the namespaces, in the order of their names, without their secrets.
-- $1 the name to begin behind text, $2 limit bigint
select name, cardinality(secrets) as secrets, created_at
from walclock.namespaces
where name > $1
order by name
limit $2
