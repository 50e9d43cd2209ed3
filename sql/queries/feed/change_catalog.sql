-- Changes a system catalog, and leaves nothing of it: that needs no right on anything of the database.
select lo_unlink(lo_create(0))
