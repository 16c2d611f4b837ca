"""What a sync asks of a roster source. Names no vendor: `clever/` is one source, and the tests have another.

Belongs here: the protocol, the terms that both sides use, and the digests that identify unchanged records. Does not belong here: reading a
source, and anything that knows a database.
"""
