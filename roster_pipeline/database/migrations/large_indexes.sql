-- Indexes of tables that are large by now. A migration would lock such a table for as long as it builds the index, so these are built
-- after it, while everybody goes on. Every statement names its index by schema, as `create index concurrently` cannot.

-- The incremental plan looks for other people with the username or SIS id that a changed person has or had (R5.3, R5.10).
create index concurrently app_users_district_username on app.users (district_id, app.normalize_username(district_username))
where district_username is not null;
create index concurrently app_users_sis_id on app.users (district_id, sis_id) where sis_id is not null;
create index concurrently staging_users_sis_id on staging.users (district_id, sis_id) where sis_id is not null;
-- The audit of Clever ids that are active in two districts (R3.6).
create index concurrently app_users_clever_id on app.users (clever_id) where clever_id is not null and deleted_at is null;
create index concurrently app_schools_clever_id on app.schools (clever_id) where clever_id is not null and deleted_at is null;
create index concurrently app_classrooms_clever_id on app.classrooms (clever_id) where clever_id is not null and deleted_at is null;
-- The feed is read by the number (R17.3).
create unique index concurrently ops_syncs_applied_no on ops.syncs (applied_no) where applied_no is not null;
