"""Cells as runs of MLflow, for those who follow all their experiments there.

A run has the cell's spec as parameters, key by key; the numbers of its metrics.json as metrics; its history as metrics
with the epoch as step; metrics.json and mask.parquet as artefacts. It began and ended when the cell did. A training
that diverged is a run that failed.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from winnow import tables
from winnow.files import InputError, file_digest, read_json
from winnow.workflow import provenance

URI = "MLFLOW_TRACKING_URI"
# A store of one's own: a database, and the artefacts beside it.
STORE, ARTEFACTS = "mlflow.db", "artifacts"
FILES = ("metrics.json", "mask.parquet")
# What a run is found again by, and what of metrics.json is neither number nor parameter.
CELL, DIGEST = "winnow.cell", "winnow.metrics_sha256"
TAGS = ("status", "reason", "device", "precision", "split", "versions", "spec.code")
# MLflow takes so many parameters, tags or metrics at once.
BATCH = 100


@dataclasses.dataclass(frozen=True)
class Tracker:
    """Where runs go.

    Attributes
    ----------
    client : mlflow.MlflowClient
    artefacts : tuple of Path or None
        A folder for artefacts: where it is now, and where it will be, which is what runs say; None: the server keeps
        them.
    """

    client: Any
    artefacts: tuple[Path, Path] | None = None

    def track(self, experiment: str, cells: Mapping[str, Path]) -> dict[str, str]:
        """Make the runs of an experiment's cells.

        Parameters
        ----------
        experiment
            Its name, there and here.
        cells
            Path → the folder of its files.

        Returns
        -------
        dict
            Path → the id of its run.
        """
        found = self.client.get_experiment_by_name(experiment)
        place = found.experiment_id if found else self.client.create_experiment(experiment, self._location())
        known = self._known(place) if found else {}
        runs = {}
        for path, folder in cells.items():
            digest = file_digest(folder / "metrics.json")
            runs[path] = known.get((path, digest)) or self._run(place, path, folder, digest)
        return runs

    def _location(self) -> str | None:
        return self.artefacts[1].absolute().as_uri() if self.artefacts else None

    def _known(self, experiment: str) -> dict[tuple[str, str], str]:
        """Cell and digest of its metrics → the id of the run that ended with them."""
        found, token = {}, None
        while True:
            page = self.client.search_runs([experiment], max_results=1000, page_token=token)
            for run in page:
                if run.info.end_time:
                    found[run.data.tags.get(CELL), run.data.tags.get(DIGEST)] = run.info.run_id
            token = page.token
            if not token:
                return found

    def _run(self, experiment: str, path: str, folder: Path, digest: str) -> str:
        from mlflow.entities import Metric, Param, RunTag

        metrics = read_json(folder / "metrics.json")
        end = (folder / "metrics.json").stat().st_mtime
        begin = end - metrics.get("seconds", {}).get("total", 0.0)
        tags = {CELL: path, DIGEST: digest} | {key: str(value) for key, value in _tags(metrics)}
        run = self.client.create_run(experiment, _stamp(begin), run_name=path).info
        values = [Metric(name, value, _stamp(end), 0) for name, value in numbers(metrics).items()]
        values += [Metric(name, value, _stamp(begin + seconds), step) for name, value, step, seconds in history(folder)]
        for some in _batches(values):
            self.client.log_batch(run.run_id, metrics=some)
        for some in _batches([Param(key, str(value)) for key, value in parameters(metrics).items()]):
            self.client.log_batch(run.run_id, params=some)
        self.client.log_batch(run.run_id, tags=[RunTag(key, value) for key, value in tags.items()])
        for name in FILES:
            self._keep(run, folder / name)
        finished = metrics["status"] == "finished"
        self.client.set_terminated(run.run_id, "FINISHED" if finished else "FAILED", _stamp(end))
        return run.run_id

    def _keep(self, run: Any, file: Path) -> None:
        if self.artefacts is None:
            self.client.log_artifact(run.run_id, str(file))
            return
        now, later = self.artefacts
        place = now / Path(run.artifact_uri.removeprefix("file://")).relative_to(later.absolute())
        place.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place / file.name)


def local(folder: Path, later: Path) -> Tracker:
    """Runs in a new store of their own, in a folder that will be renamed to ``later``."""
    return Tracker(_client(f"sqlite:///{(folder / STORE).absolute()}"), (folder / ARTEFACTS, later / ARTEFACTS))


def remote(uri: str) -> Tracker:
    """Runs in the store that an address of MLflow's names."""
    return Tracker(_client(uri))


def parameters(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a cell's spec; those of ``cell`` by their own names."""
    keys = provenance.keys(metrics["spec"])
    return {key.removeprefix("cell."): value for key, value in keys.items() if f"spec.{key}" not in TAGS}


def numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """All finite numbers of a cell's metrics, by names that MLflow takes."""
    found: dict[str, float] = {}
    for key, value in provenance.keys({name: each for name, each in metrics.items() if name != "spec"}).items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            continue
        name = re.sub(r"[^\w. -]", "_", key)
        # Two classes may differ in what is not allowed.
        names = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
        found[next(each for each in names if each not in found)] = float(value)
    return found


def history(folder: Path) -> Iterator[tuple[str, float, int, float]]:
    """A cell's history: metric, value, epoch, and the seconds that had passed by then."""
    seconds = 0.0
    for row in tables.read_table(folder / "history.parquet", "history").to_pylist():
        seconds += row["seconds"]
        for name, value in row.items():
            if name != "epoch" and value is not None and math.isfinite(value):
                yield f"history.{name}", value, row["epoch"], seconds


def _tags(metrics: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for key, value in provenance.keys(metrics).items():
        if value is not None and (key in TAGS or key.partition(".")[0] in TAGS):
            yield f"winnow.{key}", value


def _client(uri: str) -> Any:
    # Nobody is told that a grid has run.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        from mlflow import MlflowClient
    except ImportError:
        raise InputError("MLflow is not installed: make install EXTRAS=mlflow") from None
    return MlflowClient(uri)


def _batches(values: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(values), BATCH):
        yield values[start : start + BATCH]


def _stamp(seconds: float) -> int:
    return round(1000 * seconds)
