"""The command line's fixtures, for the import commands."""

from roster_pipeline_tests.commands.conftest import environment, roster

__all__ = ["environment", "roster"]
