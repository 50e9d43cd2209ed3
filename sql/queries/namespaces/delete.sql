-- Deletes a namespace in which nothing is pending or under way; no row where something is, or there is none of that name.
-- $1 name text
delete from walclock.namespaces
where name = $1
  and not exists (select from walclock.timers where namespace = $1)
  and not exists (select from walclock.schedules where namespace = $1)
  and not exists (select from walclock.under_way where namespace = $1)
returning name
