"""Faults to survive, at the level of the sync: whole syncs as real processes, on a real PostgreSQL, over real HTTP.

Belongs here: what a dead process, a lost server, a full disk, a second sync or a misbehaving Clever leaves behind, and the sync after it.
Does not belong here: how one request, one page or one lock survives alone (`clever/`, `database/`).
"""
