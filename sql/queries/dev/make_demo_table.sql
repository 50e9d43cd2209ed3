-- Makes the table that `walclock dev` shows the change feed with, and publishes it. Does nothing where it is there.
do $$
begin
    if to_regclass('public.notes') is null then
        create table public.notes (
            id bigint generated always as identity primary key,
            _change_selector text,
            body text
        );
        alter table public.notes replica identity full;
        perform walclock.publish('public.notes');
    end if;
end $$
