-- The profiles are the objects of roster_pipeline/profiles.py, so a new profile needs no migration. `roster district add` refuses an
-- unknown name. If a district has one anyway, its sync fails and says so.
alter table app.districts drop constraint districts_profile_check;
