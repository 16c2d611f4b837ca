"""The districts of the tests of the sync."""

from roster_pipeline_tests.sync.conftest import district, twig

__all__ = ["district", "twig"]
