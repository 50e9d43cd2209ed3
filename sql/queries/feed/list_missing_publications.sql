-- Which of these publications do not exist, in the order of the question.
-- $1 names text[]
select name from unnest($1::text[]) with ordinality as wanted (name, place)
where not exists (select from pg_publication where pubname = name)
order by place
