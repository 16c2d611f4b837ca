"""Alerts (R11.8): an outbox in the database, the text of each alert, and its delivery.

Does not belong here: deciding that something is worth an alert. The code that causes the event decides, in the same transaction.
"""
