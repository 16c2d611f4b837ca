"""`kill -9` of the process of a sync: at every point of its apply, and at random moments (R11.4, R11.5)."""

import random
import signal
import time
from functools import partial

from roster_pipeline_tests.faults.processes import KILLED, die_in_apply, discarded
from roster_pipeline_tests.faults.world import Town, World, assert_applied, assert_failed, assert_next_is_clean, assert_unchanged

MOMENTS = 8


def test_killed_at_every_point_of_the_apply(world: World, town: Town) -> None:
    """R11.4, R11.5: killed before the first statement or after any of them, nothing is applied. Killed after the commit, everything is.

    All kills use one database: while every row is unchanged, each sync starts from the same state.
    """
    assert town.last_point > 40
    for point in range(town.last_point):
        assert world.sync(partial(die_in_apply, point)).status == KILLED, point
        world.until(world.lock_is_free)
        assert_unchanged(world)
    assert_failed(world, failures=town.last_point)
    assert_unchanged(world)
    assert world.sync(partial(die_in_apply, town.last_point)).status == KILLED
    assert_applied(world)


def test_killed_at_any_moment(world: World, town: Town) -> None:
    """R3.2, R11.4: while it starts, pulls, plans or applies, in the middle of any statement."""
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
        assert_unchanged(world)
    assert_failed(world, failures=len(world.syncs()))
    assert_next_is_clean(world)
