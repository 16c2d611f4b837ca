"""A scripted Clever, settings that point at it, and a clock that moves only during a wait."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from roster_pipeline.clever.http import Clock
from roster_pipeline.clever.pull import DistrictPull
from roster_pipeline.settings import Settings

from .scripted import CLIENT_SECRET, DISTRICT, ScriptedClever

WALL = 1_800_000_000.0


@dataclass
class FakeTime:
    """Time that passes only during a wait.

    Attributes:
        waits: every wait, in seconds.
        tick: by how much each reading of the monotonic clock moves it, in seconds.
    """

    now: float = 0.0
    tick: float = 0.0
    waits: list[float] = field(default_factory=list)

    def clock(self) -> Clock:
        return Clock(monotonic=self._monotonic, wall=lambda: WALL + self.now, wait=self._wait)

    def _monotonic(self) -> float:
        self.now += self.tick
        return self.now

    def _wait(self, event: threading.Event, seconds: float) -> bool:
        self.waits.append(seconds)
        self.now += seconds
        return event.is_set()


@pytest.fixture
def clever() -> Iterator[ScriptedClever]:
    with ScriptedClever() as server:
        yield server


@pytest.fixture
def fake_time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def make_settings(clever: ScriptedClever) -> Callable[..., Settings]:
    def make(**more: object) -> Settings:
        values: dict[str, Any] = {
            "clever_api_url": clever.url,
            "clever_auth_url": clever.url,
            "clever_client_id": "client",
            "clever_client_secret": CLIENT_SECRET,
            "clever_page_limit": 2,
            "clever_max_attempts": 4,
            "clever_read_timeout_s": 10.0,
        }
        return Settings(_env_file=None, **(values | more))

    return make


@pytest.fixture
def make_pull(make_settings: Callable[..., Settings], fake_time: FakeTime) -> Callable[..., DistrictPull]:
    def make(district: str = DISTRICT, *, keep_student_email: bool = True, **more: object) -> DistrictPull:
        return DistrictPull(make_settings(**more), district, keep_student_email=keep_student_email, clock=fake_time.clock())

    return make
