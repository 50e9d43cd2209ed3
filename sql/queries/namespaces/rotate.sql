-- Puts a secret in front of the one that a namespace has, so that callbacks are signed by both; no row where it has two
-- already, or this one, however padded, or where there is no such namespace.
-- $1 name text, $2 secret text
update walclock.namespaces set secrets = array_prepend($2::text, secrets)
where name = $1 and cardinality(secrets) < 2
  and not exists (select from unnest(secrets) as old where rtrim(old, '=') = rtrim($2::text, '='))
returning name
