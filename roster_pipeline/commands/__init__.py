"""The commands of `roster`, one module each, registered in `cli.py`.

Belongs here: options, and what a command prints: counts and ids. Does not belong here: the work itself (`sync/`, `database/`, `demo.py`,
`dev.py`), and handling errors, which `cli.py` does. With `--json`, every command prints one JSON document on standard output, nothing else.
"""
