"""What a run shows on the terminal: what its long jobs are at, cells done and time left, and the end of a failed job's
log.

Snakemake's own account of every job goes to its log file below ``.snakemake/log/``; the terminal keeps its summary,
its warnings and its errors.
"""

from __future__ import annotations

import atexit
import collections
import contextlib
import dataclasses
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from snakemake.common import NOTHING_TO_BE_DONE_MSG
from snakemake.settings.enums import Quietness
from snakemake_interface_logger_plugins.common import LogEvent
from tqdm import tqdm

from winnow.runtime import run
from winnow.runtime.counting import SECONDS_BETWEEN_LINES, duration

LOG_LINES = 15
# Of this many jobs that run at a time it is said what they are at, so that lines stay few.
MOST = 4
# An end that comes at once needs no word.
SECONDS_TO_TELL = 2.0

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
    streams = [
        handler
        for handler in logger.handlers
        if isinstance(handler, logging.StreamHandler) and handler.name == "DefaultStreamHandler"
    ]
    if not streams:
        return
    display = Display(
        lambda rule: run.makes(workflow.get_rule(rule)) == "cells",
        streams[0].stream,
        does=lambda rule: (workflow.get_rule(rule).docstring or "").strip(),
    )
    logger.addHandler(_Handler(display, workflow, forecast, announce, unrecorded))

    def visible(record: logging.LogRecord) -> bool:
        if workflow.dryrun:
            return True
        # Who stops a run has been told what becomes of its jobs; that they end is no error.
        if display.stopping or getattr(record, "event", None) in _HIDDEN or _is_chatter(record):
            return False
        display.clear()
        return True

    streams[0].addFilter(visible)


def stopping(workflow: Any) -> None:
    """Say what a run waits for that somebody ends, unless the user asked for another display."""
    for handler in logging.getLogger("snakemake.logging").handlers:
        if isinstance(handler, _Handler) and handler.workflow is workflow:
            with handler.alone():
                handler.display.stop()


def _is_chatter(record: logging.LogRecord) -> bool:
    return record.levelno <= logging.INFO and str(record.msg).startswith(
        ("Select jobs to execute", "Execute ", "Using shell", "Conda environments: ignored", "Complete log")
    )


@dataclasses.dataclass(frozen=True)
class Job:
    """A job that runs.

    Attributes
    ----------
    told : bool
        Whether its start was said.
    """

    rule: str
    name: str
    logs: Sequence[str]
    start: float
    told: bool

    @property
    def title(self) -> str:
        return f"{self.rule} {self.name}".rstrip()

    def last_line(self) -> str:
        """The last line of its log; empty where there is none yet."""
        for log in self.logs:
            try:
                with open(log, "rb") as file:
                    file.seek(max(0, file.seek(0, 2) - 4096))
                    lines = file.read().decode(errors="replace").splitlines()
            except OSError:
                continue
            return next((line.strip() for line in reversed(lines) if line.strip()), "")
        return ""


class Display:
    """What jobs that take long are at; counts of cells and the time left: a bar on a terminal, lines elsewhere.

    ``makes_cells`` tells of a rule, by its name in the run, whether its jobs are cells, and ``does`` what they do.
    """

    def __init__(
        self,
        makes_cells: Callable[[str], bool],
        stream: Any = None,
        clock: Callable[[], float] = time.monotonic,
        does: Callable[[str], str] = lambda rule: "",
    ):
        self.makes_cells = makes_cells
        self.does = does
        self.stream = stream or sys.stderr
        self.clock = clock
        self.stopping = False
        self.totals: collections.Counter[str] = collections.Counter()
        self.cells = 0
        self.done = 0
        self.failed: set[str] = set()
        self.jobs: dict[int, Job] = {}
        self.bar: tqdm[Any] | None = None
        self.start: float | None = None
        self.said = 0.0
        self.wrote = clock()
        self.lines: list[str] = []

    def clear(self) -> None:
        if self.bar is not None:
            self.bar.clear()

    def planned(self, stats: dict[str, int]) -> None:
        if not self.totals:
            self.totals.update({rule: int(count) for rule, count in stats.items() if rule != "total"})
            self.cells = sum(count for rule, count in self.totals.items() if self.makes_cells(rule))

    def started(self, jobid: int, rule: str, name: str, logs: Sequence[str] = ()) -> None:
        # 0: what a checkpoint added to the plan
        told = not self.makes_cells(rule) and self.totals[rule] <= 1
        job = self.jobs[jobid] = Job(rule, name, logs, self.clock(), told)
        if told:
            does = self.does(rule)
            self.write(f"{job.title}: {does}" if does else job.title)
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

    def _running(self) -> int:
        return sum(self.makes_cells(job.rule) for job in self.jobs.values())

    def look(self) -> None:
        """To be called now and then: where nothing was said for a while, say what the jobs are at."""
        now = self.clock()
        if self.bar is not None:
            self._beside(self.bar)
        elif now - self.wrote >= SECONDS_BETWEEN_LINES:
            long = [job for job in self.jobs.values() if now - job.start >= SECONDS_BETWEEN_LINES]
            lines = [f"{job.title}: {job.last_line() or f'{duration(now - job.start)} so far'}" for job in long]
            # What does not move is not said again.
            if new := [line for line in lines if line not in self.lines]:
                more = len(new) - MOST
                self.write("\n".join(new[:MOST] + ([f"and {more} more jobs"] if more > 0 else [])))
            self.lines = lines

    def _beside(self, bar: tqdm[Any], refresh: bool = True) -> None:
        """Beside ``bar``: how many failed, and the epoch of the cell that has run longest."""
        cells = (job for job in self.jobs.values() if self.makes_cells(job.rule))
        line = next((job.last_line() for job in cells), "")
        parts = [f"{len(self.failed)} failed" if self.failed else "", line.split(":")[0].split(",")[0]]
        bar.set_postfix_str(", ".join(filter(None, parts)), refresh=refresh)

    def stop(self) -> None:
        """Somebody ends the run: say what it waits for."""
        self.stopping = True
        lines = ["Stopping; the same command goes on from here."]
        if self.jobs:
            lines[0] += " A training writes its checkpoint, any other job is made anew. Once more kills them."
            lines.append("Waiting for:")
            lines += [f"  {job.title}" for job in self.jobs.values()]
        self.write("\n".join(lines))

    def finished(self, jobid: int) -> None:
        job = self.jobs.pop(jobid)
        if self.makes_cells(job.rule):
            self.done += 1
            self._advance()
        elif job.told and (taken := self.clock() - job.start) >= SECONDS_TO_TELL:
            self.write(f"{job.title}: done in {duration(taken)}")

    def broke(self, jobid: int, logs: list[str]) -> None:
        job = self.jobs.pop(jobid)
        if self.stopping:
            self.write(f"  ended: {job.title}" + (f": {line}" if (line := job.last_line()) else ""))
            return
        if self.makes_cells(job.rule):
            self.failed.add(job.name)
        lines = [f"FAILED {job.title}"]
        for log in logs:
            try:
                with open(log, encoding="utf-8", errors="replace") as file:
                    end = [line.split("\r")[-1].rstrip() for line in collections.deque(file, LOG_LINES)]
            except OSError as error:
                lines.append(f"  no log: {error.strerror}: {log}")
                continue
            lines += [f"  {log} ends:" if end else f"  {log} is empty", *(f"    {line}" for line in end)]
        self.write("\n".join(lines))
        if self.makes_cells(job.rule):
            self._advance()

    def write(self, text: str) -> None:
        self.wrote = self.clock()
        if self.bar is not None:
            tqdm.write(text, file=self.stream)
        else:
            print(text, file=self.stream, flush=True)

    def _advance(self) -> None:
        cells, failed = self.cells, len(self.failed)
        ended = self.done + failed
        if self.bar is not None:
            self._beside(self.bar, refresh=False)
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


def _fetch(log: Any) -> None:
    """Copy what a job has left in a storage, if it has: a machine that is lost takes its log along."""
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    # Each storage says in its own way that it has no such file.
    with contextlib.suppress(Exception):
        log.storage_object.retrieve_object()


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
        self.ended = threading.Event()

    def _watch(self) -> None:
        while not self.ended.wait(1.0):
            with self.alone():
                self.display.look()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """While no record is written."""
        self.acquire()
        try:
            yield
        finally:
            self.release()

    def close(self) -> None:
        self.ended.set()
        super().close()

    def emit(self, record: logging.LogRecord) -> None:
        # What Snakemake says of an event are further attributes of its record.
        said = vars(record)
        event = said.get("event")
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
            self.display.planned(said["stats"])
            threading.Thread(target=self._watch, daemon=True).start()
        elif event == LogEvent.JOB_INFO:
            name = "/".join(str(value) for value in said["wildcards"].values())
            self.display.started(said["jobid"], said["rule_name"], name, [str(log) for log in self._logs(said)])
        elif event == LogEvent.JOB_FINISHED:
            self.display.finished(said["job_id"])
        elif event == LogEvent.JOB_ERROR:
            self.display.broke(said["jobid"], [str(log) for log in self._logs(said, fetch=True)])

    def _logs(self, said: Mapping[str, Any], fetch: bool = False) -> list[Any]:
        """A job's logs, its own first; of those in a storage their copies here, fetched if the job ran elsewhere."""
        logs = list(said.get("log") or ())
        if self.workflow.storage_settings.default_storage_provider is None:
            return logs
        dag = self.workflow.dag
        job = next((job for job in dag.jobs if dag.jobid(job) == said["jobid"]), None)
        if job is None:
            return logs
        if fetch and not (self.workflow.local_exec or job.is_local):
            for log in job.log:
                _fetch(log)
        return [*job.log, *logs[len(job.log) :]]

    def _warn(self) -> None:
        found = list(dict.fromkeys(result for unrecorded in self.unrecorded for result in unrecorded()))
        if found:
            more = f" and {len(found) - 3} more" if len(found) > 3 else ""
            self.display.write(
                f"WARNING: {len(found)} results were made with another configuration or code than the present one, and "
                f"Snakemake has no record of them: {', '.join(found[:3])}{more}. They stay as they are unless you "
                "delete them, or force their rules with --forcerun."
            )
