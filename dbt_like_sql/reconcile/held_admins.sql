-- People whose new admin role is held. Until it is decided, an active user keeps the present roles and username (R7.4).
-- grain: one row per person and held role
-- rules: R7.4
-- decides by: itself
select
    new_admins.clever_id,
    new_admins.role,
    new_admins.is_active
from reconcile.new_admins as new_admins
inner join reconcile.holds as holds on holds.kind = 'new_admins' and new_admins.role = holds.role
