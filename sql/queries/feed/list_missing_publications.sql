-- Which of these publications do not exist.
-- $1 names text[]
select name from unnest($1::text[]) as name
where not exists (select from pg_publication where pubname = name)
