"""The districts for the tests of what follows its syncs."""

from roster_pipeline_tests.sync.conftest import district, twig

__all__ = ["district", "twig"]
