-- What these publications have, from the catalogs alone: the view opens every table, and waits for who has one to himself.
-- A publication without a member has one row, with nulls.
-- Which schemas are published stands in a catalog of PostgreSQL 15 and later, and among the dependencies everywhere.
-- $1 publications text[]
with asked as (
    select oid, xmin::text as version, pubname::text as name, md5(to_jsonb(p)::text) as shape, puballtables as has_all,
           array[pubinsert, pubupdate, pubdelete, pubtruncate] as kinds
    from pg_publication p
    where pubname = any ($1::text[])
), members as (
    select r.prpubid as publication, r.oid as row, c.oid as relation, format('%I.%I', n.nspname, c.relname) as name,
           format('tables in schema %I', n.nspname) as schema,
           md5(concat(to_jsonb(r) ->> 'prattrs', '/', to_jsonb(r) ->> 'prqual')) as shape
    from asked
    join pg_publication_rel r on r.prpubid = asked.oid
    join pg_class c on c.oid = r.prrelid
    join pg_namespace n on n.oid = c.relnamespace
    union all
    select of.refobjid, of.objid, 0, format('tables in schema %I', n.nspname), format('tables in schema %I', n.nspname), ''
    from asked
    join pg_depend of on of.refclassid = 'pg_publication'::regclass and of.refobjid = asked.oid
        and of.classid = to_regclass('pg_catalog.pg_publication_namespace')
    join pg_depend it on it.classid = of.classid and it.objid = of.objid and it.refclassid = 'pg_namespace'::regclass
    join pg_namespace n on n.oid = it.refobjid
)
select asked.name, asked.oid, asked.version, asked.shape, asked.has_all, asked.kinds,
       m.row, m.relation, m.name, m.schema, m.shape
from asked
left join members m on m.publication = asked.oid
