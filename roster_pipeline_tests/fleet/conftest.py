"""The districts of the tests of the sync."""

from roster_pipeline_tests.sync.conftest import district

__all__ = ["district"]
