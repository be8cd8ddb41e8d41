"""How far a program is: a bar on a terminal, and a line now and then elsewhere, as in a job's log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 15.0

Item = TypeVar("Item")


class Count:
    """Counts what is done of a list.

    Parameters
    ----------
    total
        How many there are; None where nobody knows.
    unit
        What they are, in the plural.
    done
        How many an earlier run has done.
    """

    def __init__(
        self,
        total: int | None,
        unit: str,
        done: int = 0,
        stream: Any = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.total, self.unit = total, unit
        self.stream = stream or sys.stderr
        self.clock = clock
        self.bar: tqdm[Any] | None = None
        if self.stream.isatty():
            self.bar = tqdm(total=total, initial=done, unit=f" {unit}", file=self.stream, leave=False)
        self.begin(done)

    def begin(self, done: int = 0) -> None:
        """Count on from ``done``, as where what was done has to be done again."""
        self.done = self.before = done
        self.start = self.said = self.clock()
        if self.bar is not None:
            self.bar.n = done

    def advance(self, note: str = "") -> None:
        """One more is done; ``note`` is shown beside the count."""
        self.add(1, note)

    def add(self, number: int, note: str = "") -> None:
        """So many more are done."""
        self.done += number
        if self.bar is not None:
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(number)
        elif (now := self.clock()) - self.said >= SECONDS_BETWEEN_LINES:
            self.said = now
            elapsed = now - self.start
            of = "" if self.total is None else f" of {self.total}"
            parts = [f"{self.done}{of} {self.unit}", note, f"{duration(elapsed)} so far"]
            if self.total is not None and self.before < self.done < self.total:
                left = elapsed * (self.total - self.done) / (self.done - self.before)
                parts.append(f"about {duration(left)} left")
            print(", ".join(filter(None, parts)), file=self.stream, flush=True)

    def over(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, each counted once it has been dealt with."""
        for item in items:
            yield item
            self.advance()
        self.close()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def say(text: str) -> None:
    """Print a line that stands in a log at once."""
    print(text, flush=True)


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
