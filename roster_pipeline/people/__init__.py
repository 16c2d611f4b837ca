"""People who are imported from CSV instead of Clever: admins, and users where the profile has them (R8.2).

Belongs here: reading the file (`reader.py`), and what an import does to `app` (`imports.py` and the SQL beside it). Does not belong here:
the commands (`commands/people.py`), and what a sync does to imported people afterwards, which is nothing: they are protected (R8.1).
"""
