-- Indexes for the incremental plan: it looks for other people with a username that a changed person has or had.

create index users_username on staging.users (district_id, app.normalize_username(username)); -- people that Clever gives it to
create index users_own_id on staging.users (district_id, app.normalize_username(clever_id)); -- people whose Clever id it is (R5.5)
-- Deleted users that had it. Another index has the active user; there is at most one.
create index users_deleted_username on app.users (district_id, username_key) where deleted_at is not null;

-- The purpose of those indexes of 0001 that have no comment there.
comment on index app.agreed_schools_name_key is 'one agreed school of a name; however it is spelt';
comment on index app.schools_clever_id_key is 'one school of a Clever id; a sync finds a district''s schools by it';
comment on index app.users_clever_id_key is 'one user of a Clever id, also a deleted one (R8.3); a sync finds people by it';
comment on index app.classrooms_clever_id_key is 'one classroom of a Clever id; a sync finds sections by it';
comment on index ops.holds_district is 'every plan asks for the holds of its district, the newest first';
comment on index ops.quarantine_sync is 'a sync that repeats the last answer copies its quarantine, and retention removes it by sync';
