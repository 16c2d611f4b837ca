-- The schools of the agreement. A sync keeps the Clever id that a name means, so that renaming the school changes nothing. Two schools of
-- one name: none is kept. A row written here has no history: it is the agreement's, not the roster's.
-- grain: one row per row written
-- rules: R6.4
update app.agreed_schools as agreed
set clever_id = case when meant.meanings = 1 then meant.clever_id end
from reconcile.agreed_schools as meant
where
    agreed.district_id = :district_id
    and agreed.agreed_school_id = meant.agreed_school_id
    and meant.meanings > 0
    and agreed.clever_id is distinct from case when meant.meanings = 1 then meant.clever_id end
