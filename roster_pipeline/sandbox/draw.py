"""Drawing from one seeded source, cheaply enough for millions of fields.

Does not belong here: what is drawn.
"""

from collections.abc import Sequence
from random import Random
from typing import TypeVar

Item = TypeVar("Item")


class Draw(Random):
    """A seeded source with two quick draws; the same seed gives the same draws on every platform."""

    def pick(self, items: Sequence[Item]) -> Item:
        """One of `items`; `choice` at a third of its cost."""
        return items[int(self.random() * len(items))]

    def chance(self, share: float) -> bool:
        """True for that share of draws."""
        return self.random() < share
