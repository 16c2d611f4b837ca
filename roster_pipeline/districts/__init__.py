"""The districts: the agreement with each one, its effective rules, its windows and its nights.

Does not belong here: the sync of one district (`sync/`), and unattended work for all districts (`fleet/`).
"""
