-- What stands before the first migration: the schema that the history lives in.
create schema if not exists walclock;
