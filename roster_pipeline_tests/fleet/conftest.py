"""A district for the tests of what follows its syncs."""

from roster_pipeline_tests.sync.conftest import district

__all__ = ["district"]
