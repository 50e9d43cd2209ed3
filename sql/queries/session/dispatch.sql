-- What a dispatcher's session has besides. Its statements look rows up by keys that travel in arrays, and are planned
-- once. A plan made while the tables were empty must still be good when they hold millions of rows, so only the one that
-- goes by index is left to choose.
set plan_cache_mode = force_generic_plan;
set enable_seqscan = off;
set enable_bitmapscan = off;
set enable_hashjoin = off;
set enable_mergejoin = off;
