"""The districts that are connected: what was agreed with each, its effective rules, and its nights.

Does not belong here: one district's sync (`sync/`), and what runs for all of them unattended (`fleet/`).
"""
