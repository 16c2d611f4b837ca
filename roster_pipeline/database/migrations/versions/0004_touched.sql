-- What makes a plan of what has been touched: it asks who else has a name that somebody touched has or had.

create index users_username on staging.users (district_id, app.normalize_username(username)); -- who asks for it
create index users_own_id on staging.users (district_id, app.normalize_username(clever_id)); -- whose Clever id it is (R5.5)
-- Who had it; there is only one active user of a name.
create index users_deleted_username on app.users (district_id, username_key) where deleted_at is not null;

-- Why the indexes of 0001 are there that do not say it.
comment on index app.agreed_schools_name_key is 'one agreed school of a name; however it is spelt';
comment on index app.schools_clever_id_key is 'one school of a Clever id; a sync finds a district''s schools by it';
comment on index app.users_clever_id_key is 'one user of a Clever id, also a deleted one (R8.3); a sync finds people by it';
comment on index app.classrooms_clever_id_key is 'one classroom of a Clever id; a sync finds sections by it';
comment on index ops.holds_district is 'every plan asks for the holds of its district, the newest first';
comment on index ops.quarantine_sync is 'a sync that repeats the last answer copies its quarantine, and retention removes it by sync';
