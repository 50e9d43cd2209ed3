-- What decides whether this server can be used at all.
select current_setting('server_version_num')::integer as version_number,
       current_setting('server_version') as version,
       pg_encoding_to_char(encoding) as encoding
from pg_database
where datname = current_database()
