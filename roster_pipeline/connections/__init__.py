"""Which districts are connected to the application (R11.7). Start at `listings.reconcile_connections`.

Does not belong here: reading the list from Clever (`clever/tokens.py`), and the agreement with a district (`districts/`).
"""
