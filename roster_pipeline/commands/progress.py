"""Progress of a sync: one changing line on a terminal, plain lines elsewhere. It goes to standard error, because standard output is for the
result alone.

Does not belong here: the result (`sync.py`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from roster_pipeline.commands.output import console
from roster_pipeline.database.runner import Step


@contextmanager
def show_progress() -> Iterator[Callable[[Step], None]]:
    """Yields a function to call after every step. A file or pipe gets only the steps that pull and write; the others are short."""
    screen = console(stderr=True)
    if not screen.is_terminal:
        yield lambda step: screen.print(_line(step)) if step.name.startswith(("clever.", "app.")) else None
        return
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=screen, transient=True) as progress:
        task = progress.add_task("Asking Clever", total=None)
        yield lambda step: progress.update(task, description=_line(step))


def _line(step: Step) -> str:
    return f"{step.name:<32} {step.rows:>10,} rows {step.seconds:>8.1f} s"
