-- Which transactions are over, and what this server's clock says, in microseconds since 1970.
select pg_current_snapshot()::text,
       (extract(epoch from clock_timestamp()) * 1000000)::int8
