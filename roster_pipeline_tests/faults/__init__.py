"""Faults during whole syncs: real processes, on a real PostgreSQL, over real HTTP.

Belongs here: the state after a dead process, a lost server, a full disk, a second sync or a misbehaving Clever, and the next sync.
Does not belong here: faults of a single request, page or lock (`clever/`, `database/`).
"""
