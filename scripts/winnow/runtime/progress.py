"""What a run shows on the terminal: cells done and time left, and the end of a failed job's log.

Snakemake's own account of every job goes to its log file below ``.snakemake/log/``; the terminal keeps its summary,
its warnings and its errors.
"""

from __future__ import annotations

import atexit
import collections
import logging
import sys
import time
from collections.abc import Callable
from typing import Any

from snakemake.common import NOTHING_TO_BE_DONE_MSG
from snakemake.settings.enums import Quietness
from snakemake_interface_logger_plugins.common import LogEvent
from tqdm import tqdm

from winnow.runtime import run
from winnow.runtime.counting import SECONDS_BETWEEN_LINES, duration

LOG_LINES = 15

_HIDDEN = frozenset(
    [
        LogEvent.JOB_INFO,
        LogEvent.JOB_STARTED,
        LogEvent.JOB_FINISHED,
        LogEvent.JOB_ERROR,
        LogEvent.PROGRESS,
        LogEvent.RESOURCES_INFO,
        LogEvent.SHELLCMD,
    ]
)


def attach(
    workflow: Any, forecast: Callable[[], str], announce: Callable[[], None], unrecorded: Callable[[], list[str]]
) -> None:
    """Show the progress of ``workflow``'s run on the terminal, in the place of Snakemake's account of every job.

    After a dry run, what ``forecast`` says is its last line; ``announce`` is called where there is nothing to do. Of
    the results that ``unrecorded`` names, the user is warned. Where the Snakefile is loaded several times, as a module
    is with each ``use rule``, there is one display for all; what several loads say is said once.
    """
    settings = workflow.output_settings
    quiet = set(settings.quiet or ()) - {Quietness.HOST}
    if quiet or settings.verbose or settings.printshellcmds or settings.log_handler_settings:
        return  # The user asked for another display.
    logger = logging.getLogger("snakemake.logging")
    for handler in logger.handlers:
        if isinstance(handler, _Handler) and handler.workflow is workflow:
            handler.forecasts.append(forecast)
            handler.unrecorded.append(unrecorded)
            return
    streams = [handler for handler in logger.handlers if handler.name == "DefaultStreamHandler"]
    if not streams:
        return
    display = Display(lambda rule: run.makes(workflow.get_rule(rule)) == "cells", streams[0].stream)
    logger.addHandler(_Handler(display, workflow, forecast, announce, unrecorded))

    def visible(record: logging.LogRecord) -> bool:
        if workflow.dryrun:
            return True
        if getattr(record, "event", None) in _HIDDEN or _is_chatter(record):
            return False
        display.clear()
        return True

    streams[0].addFilter(visible)


def _is_chatter(record: logging.LogRecord) -> bool:
    return record.levelno <= logging.INFO and str(record.msg).startswith(
        ("Select jobs to execute", "Execute ", "Using shell", "Conda environments: ignored", "Complete log")
    )


class Display:
    """Counts of cells and the time left, as a bar on a terminal and as a line now and then elsewhere.

    ``makes_cells`` tells of a rule, by its name in the run, whether its jobs are cells.
    """

    def __init__(
        self, makes_cells: Callable[[str], bool], stream: Any = None, clock: Callable[[], float] = time.monotonic
    ):
        self.makes_cells = makes_cells
        self.stream = stream or sys.stderr
        self.clock = clock
        self.totals: collections.Counter[str] = collections.Counter()
        self.cells = 0
        self.done = 0
        self.failed: set[str] = set()
        self.jobs: dict[int, tuple[str, str]] = {}
        self.bar: tqdm | None = None
        self.start: float | None = None
        self.said = 0.0

    def clear(self) -> None:
        if self.bar is not None:
            self.bar.clear()

    def planned(self, stats: dict[str, int]) -> None:
        if not self.totals:
            self.totals.update({rule: int(count) for rule, count in stats.items() if rule != "total"})
            self.cells = sum(count for rule, count in self.totals.items() if self.makes_cells(rule))

    def started(self, jobid: int, rule: str, name: str) -> None:
        self.jobs[jobid] = (rule, name)
        if self.makes_cells(rule):
            if name in self.failed:  # It is tried again.
                self.failed.remove(name)
                if self.bar is not None:
                    self.bar.update(-1)
            # A grid that grows has more cells than were planned.
            self.cells = max(self.cells, self.done + len(self.failed) + self._running())
            if self.bar is not None:
                self.bar.total = self.cells
            if self.start is None:
                self.start = self.said = self.clock()
                if self.stream.isatty():
                    self.bar = tqdm(total=self.cells, desc="cells", unit="cell", file=self.stream, leave=True)
        elif self.totals[rule] <= 1:  # 0: what a checkpoint added to the plan
            self.write(f"{rule} {name}".rstrip())

    def _running(self) -> int:
        return sum(self.makes_cells(rule) for rule, _ in self.jobs.values())

    def finished(self, jobid: int) -> None:
        rule, _ = self.jobs.pop(jobid)
        if self.makes_cells(rule):
            self.done += 1
            self._advance()

    def broke(self, jobid: int, logs: list[str]) -> None:
        rule, name = self.jobs.pop(jobid)
        if self.makes_cells(rule):
            self.failed.add(name)
        lines = [f"FAILED {rule} {name}".rstrip()]
        for log in logs:
            try:
                with open(log, encoding="utf-8", errors="replace") as file:
                    end = [line.split("\r")[-1].rstrip() for line in collections.deque(file, LOG_LINES)]
            except OSError as error:
                lines.append(f"  no log: {error.strerror}: {log}")
                continue
            lines += [f"  {log} ends:" if end else f"  {log} is empty", *(f"    {line}" for line in end)]
        self.write("\n".join(lines))
        if self.makes_cells(rule):
            self._advance()

    def write(self, text: str) -> None:
        if self.bar is not None:
            tqdm.write(text, file=self.stream)
        else:
            print(text, file=self.stream, flush=True)

    def _advance(self) -> None:
        cells, failed = self.cells, len(self.failed)
        ended = self.done + failed
        if self.bar is not None:
            self.bar.set_postfix_str(f"{failed} failed" if failed else "", refresh=False)
            self.bar.update()
            if ended == cells:
                self.bar.close()
                self.bar = None
            return
        now = self.clock()
        # The first cell tells how long they all take.
        if ended in (1, cells) or now - self.said >= SECONDS_BETWEEN_LINES:
            self.said = now
            elapsed = now - (self.start or now)
            text = f"cells {self.done}/{cells}"
            if failed:
                text += f", {failed} failed"
            text += f", {duration(elapsed)} so far"
            if ended < cells:
                # Where cells run side by side, the first to end is not the only one that was worked at.
                beside = self._running()
                text += f", about {duration(elapsed * (cells / max(ended, 1 + beside) - 1))} left"
            self.write(text)


class _Handler(logging.Handler):
    """Turns Snakemake's log events into calls on a display."""

    def __init__(
        self,
        display: Display,
        workflow: Any,
        forecast: Callable[[], str],
        announce: Callable[[], None],
        unrecorded: Callable[[], list[str]],
    ):
        super().__init__()
        self.display = display
        self.workflow = workflow
        self.forecasts = [forecast]
        self.announce = announce
        self.unrecorded = [unrecorded]
        self.begun = False

    def emit(self, record: logging.LogRecord) -> None:
        event = getattr(record, "event", None)
        idle = record.msg == NOTHING_TO_BE_DONE_MSG
        if not self.begun and (idle or event == LogEvent.RUN_INFO):
            self.begun = True
            self._warn()
            # A long list of jobs follows a dry run's counts: the forecast comes after it.
            if self.workflow.dryrun:
                for text in dict.fromkeys(forecast() for forecast in self.forecasts):
                    if text:
                        atexit.register(print, text, file=self.display.stream)
        if self.workflow.dryrun:
            return
        if idle:
            self.announce()
        elif event == LogEvent.RUN_INFO:
            self.display.planned(record.stats)
        elif event == LogEvent.JOB_INFO:
            name = "/".join(str(value) for value in record.wildcards.values())
            self.display.started(record.jobid, record.rule_name, name)
        elif event == LogEvent.JOB_FINISHED:
            self.display.finished(record.job_id)
        elif event == LogEvent.JOB_ERROR:
            self.display.broke(record.jobid, list(record.log))

    def _warn(self) -> None:
        found = list(dict.fromkeys(result for unrecorded in self.unrecorded for result in unrecorded()))
        if found:
            more = f" and {len(found) - 3} more" if len(found) > 3 else ""
            self.display.write(
                f"WARNING: {len(found)} results were made with another configuration or code than the present one, and "
                f"Snakemake has no record of them: {', '.join(found[:3])}{more}. They stay as they are unless you "
                "delete them, or force their rules with --forcerun."
            )
