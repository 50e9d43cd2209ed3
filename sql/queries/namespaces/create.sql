-- Makes a namespace; no row where there is one of that name.
-- $1 name text, $2 secrets text[]
insert into walclock.namespaces (name, secrets)
values ($1, $2)
on conflict (name) do nothing
returning name
