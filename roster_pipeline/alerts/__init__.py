"""Alerts (R11.8): an outbox in the database, the words for what is in it, and its delivery.

Does not belong here: deciding that something is worth an alert. Whoever causes it decides, in the transaction of the cause.
"""
