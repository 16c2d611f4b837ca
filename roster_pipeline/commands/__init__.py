"""The commands of `roster`, one module each, registered in `cli.py`.

Belongs here: options, and what is printed: counts and ids. Does not belong here: what is done (`sync/`, `database/`, `demo.py`, `dev.py`),
and errors, which travel up to `cli.py`. Every command takes `--json` and then prints one JSON document on standard output, nothing else.
"""
