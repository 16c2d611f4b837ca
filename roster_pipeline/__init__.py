"""Nightly Clever rostering into PostgreSQL. docs/architecture.md explains the folders and which may import which."""
