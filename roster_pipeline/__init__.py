"""Nightly Clever rostering into PostgreSQL. The folders are the data flow: clever, sync (with database), and defs for Dagster."""
