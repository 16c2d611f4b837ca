"""`kill -9` of the process of a sync: at every point of its apply, and at any moment of its life (R11.4, R11.5)."""

import random
import signal
import time
from functools import partial

from roster_pipeline_tests.faults.processes import KILLED, die_in_apply, discarded
from roster_pipeline_tests.faults.world import Town, World, assert_applied, assert_failed, assert_next_is_clean, assert_untouched

MOMENTS = 8


def test_killed_at_every_point_of_the_apply(world: World, town: Town) -> None:
    """R11.4, R11.5: before the first statement and after every one nothing of it is there; after the commit all of it is.

    One database for all: as long as every row is as it was, the next sync starts from where the first one did.
    """
    assert town.last_point > 40
    for point in range(town.last_point):
        assert world.sync(partial(die_in_apply, point)).status == KILLED, point
        world.until(world.lock_is_free)
        assert_untouched(world)
    assert_failed(world, failures=town.last_point)
    assert_untouched(world)
    assert world.sync(partial(die_in_apply, town.last_point)).status == KILLED
    assert_applied(world)


def test_killed_at_any_moment(world: World, town: Town) -> None:
    """R3.2, R11.4: while it starts, pulls, plans or applies, whichever statement the server is in the middle of."""
    draw = random.Random(4)
    for moment in sorted(draw.uniform(0.1, 1.0) for _ in range(MOMENTS)):
        syncing = world.start("sync", world.clever_id)
        with discarded(syncing):
            time.sleep(moment * town.seconds)
            syncing.signal(signal.SIGKILL)
            syncing.ended()
        world.until(world.lock_is_free)
        if world.syncs() and world.syncs()[-1] == ("successful",):
            assert_applied(world)
            return
        assert_untouched(world)
    assert_failed(world, failures=len(world.syncs()))
    assert_next_is_clean(world)
