-- The profiles are the objects of roster_pipeline/profiles.py, and a new one needs no migration. `roster district add` refuses any other name,
-- and the sync of a district whose row has one fails and says so.
alter table app.districts drop constraint districts_profile_check;
