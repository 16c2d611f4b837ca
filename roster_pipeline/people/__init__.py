"""People who are imported from CSV instead of Clever: admins, and users where the profile has them (R8.2).

Belongs here: reading the file (`reader.py`), and writing its people to `app` (`imports.py` and the SQL files of this folder). Does not
belong here: the commands (`commands/people.py`), and syncs, which never change imported people, because they are protected (R8.1).
"""
