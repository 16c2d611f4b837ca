-- What makes a plan of what has been touched: it asks who else has a name that somebody touched has or had.

create index users_username on staging.users (district_id, app.normalize_username(username)); -- who asks for it
create index users_own_id on staging.users (district_id, app.normalize_username(clever_id)); -- whose Clever id it is (R5.5)
create index users_deleted_username on app.users (district_id, username_key) where deleted_at is not null; -- who had it; of those who have it there is one
