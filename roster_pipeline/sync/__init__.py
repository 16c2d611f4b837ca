"""One district's sync, step by step, in plain Python: pull, stage, plan, apply, ledger. Nothing here knows Dagster."""
