"""One district's sync, step by step, in plain Python: pull, staging, plan, apply, ledger. Nothing here imports Dagster."""
