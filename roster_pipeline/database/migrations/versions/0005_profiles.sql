-- The profiles are the objects of roster_pipeline/profiles.py, and a new one needs no migration. `roster district add` refuses a name that is none of
-- them; so does the sync of a district whose row has one all the same.
alter table app.districts drop constraint districts_profile_check;
