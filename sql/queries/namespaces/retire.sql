-- Drops the second of a namespace's two secrets, the older one; no row where it has not two, or there is no such namespace.
-- $1 name text
update walclock.namespaces set secrets = array[secrets[array_lower(secrets, 1)]]
where name = $1 and cardinality(secrets) = 2
returning name
