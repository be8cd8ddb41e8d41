"""How far a program is in a long list: a bar on a terminal, and a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 15.0


class Count:
    """Counts what is done of a list.

    Parameters
    ----------
    total
        How many there are.
    unit
        What they are, in the plural.
    done
        How many an earlier run has done.
    """

    def __init__(
        self, total: int, unit: str, done: int = 0, stream: Any = None, clock: Callable[[], float] = time.monotonic
    ):
        self.total, self.unit, self.done, self.before = total, unit, done, done
        self.stream = stream or sys.stderr
        self.clock = clock
        self.start = self.said = clock()
        self.bar: tqdm | None = None
        if self.stream.isatty():
            self.bar = tqdm(total=total, initial=done, unit=f" {unit}", file=self.stream, leave=False)

    def advance(self, note: str = "") -> None:
        """One more is done; ``note`` is shown beside the count."""
        self.done += 1
        if self.bar is not None:
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update()
        elif (now := self.clock()) - self.said >= SECONDS_BETWEEN_LINES:
            self.said = now
            elapsed = now - self.start
            left = elapsed * (self.total - self.done) / (self.done - self.before)
            parts = [f"{self.done} of {self.total} {self.unit}", note, f"{duration(elapsed)} so far"]
            parts += [f"about {duration(left)} left"] if self.done < self.total else []
            print(", ".join(filter(None, parts)), file=self.stream, flush=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
