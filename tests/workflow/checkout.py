"""A copy of the workflow in a folder of its own, with a small grid, run for real."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import yaml
from snakemake import cli

from .. import nursery

ROOT = Path(__file__).parents[2]
SOURCES = ("Snakefile", "rules", "scripts", "profiles", "envs")

# Two data sets with a recipe each, three cells on each of them: as small as the contract's rows allow.
SMALL_GRID: dict[str, Any] = {
    "targets": ["small"],
    "datasets": {
        "digits": {
            "source": "digits",
            "classes": [5, 6, 7],
            "train_per_class": 8,
            "val_per_class": 4,
            "store_size": 8,
            "image_size": 8,
            "recipe": "quick",
        },
        "others": {
            "source": "digits",
            "classes": [0, 1],
            "train_per_class": 8,
            "val_per_class": 4,
            "store_size": 8,
            "image_size": 8,
            "recipe": "brief",
        },
    },
    "backbones": {
        "net": {
            "architecture": "vgg_digits",
            "head": "gap",
            "weights": "random",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
        }
    },
    "recipes": {
        "quick": {"epochs": 2, "batch_size": 8, "learning_rate": 0.05},
        "brief": {"epochs": 1, "batch_size": 4, "learning_rate": 0.02},
        "unused": {"epochs": 9, "batch_size": 4, "learning_rate": 0.02},
    },
    "experiments": {
        "small": {
            "datasets": ["digits", "others"],
            "backbones": ["net"],
            "criteria": ["apoz", "average_weight"],
            "scopes": ["layer"],
            "ratios": [0.5],
            "seeds": [0],
        }
    },
}


class Checkout:
    """The workflow's sources and a configuration in ``path``; results lie there too."""

    def __init__(self, path: Path, config: dict[str, Any] | None = None):
        self.path = path
        if not path.exists():
            path.mkdir(parents=True)
            for name in SOURCES:
                source = ROOT / name
                if source.is_dir():
                    shutil.copytree(source, path / name, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy2(source, path / name)
            self.configure(config or SMALL_GRID)

    @property
    def config(self) -> dict[str, Any]:
        return yaml.safe_load((self.path / "config.yaml").read_text())

    def configure(self, config: dict[str, Any]) -> None:
        (self.path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))

    def copy(self, path: Path) -> Checkout:
        """Another checkout with the same sources, results and Snakemake's records, times included."""
        shutil.copytree(self.path, path, symlinks=True)
        return Checkout(path)

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.path / file
        text = path.read_text()
        assert old in text, f"{old!r} is not in {file}"
        path.write_text(text.replace(old, new, 1))

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]

    def environment(self, **extra: str) -> dict[str, str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("WINNOW_")}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        if nursery.ADDRESS in environment:
            environment["WINNOW_NURSERY"] = environment[nursery.ADDRESS]
        return environment | extra

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen:
        """Snakemake in a process group of its own."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.path,
            env=self.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # Where tests run in the background, Ctrl-C is ignored, and so it would be here.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def snakemake(self, *arguments: str, status: int = 0, seconds: float = 300, **environment: str) -> str:
        """Run Snakemake, for at most ``seconds``; hold its exit status against ``status``; return what it printed."""
        process = self.start(*arguments, **environment)
        try:
            output, _ = process.communicate(timeout=seconds)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        assert process.returncode == status, output
        return output

    def run(self, *arguments: str, **environment: str) -> set[str]:
        """Run Snakemake for real and return the jobs that it ran: ``rule first/second/...`` by its wildcards."""
        logs = self.path / ".snakemake" / "log"
        before = set(logs.glob("*.log"))
        self.snakemake(*arguments, **environment)
        (log,) = set(logs.glob("*.log")) - before
        return jobs(log.read_text())

    def account(self) -> str:
        """Snakemake's account of the first run that was made here."""
        return min((self.path / ".snakemake" / "log").glob("*.log"), key=lambda log: log.stat().st_mtime_ns).read_text()

    def planned(self, *arguments: str, **environment: str) -> set[str]:
        """The jobs that a run would have, by a dry run: as :meth:`run` names them."""
        status, output = self.forked("--dry-run", *arguments, **environment)
        assert status == 0, output
        return jobs(output)

    def forked(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """Snakemake's exit status and output, in a fork of this process, which has it loaded: that is half of its time.

        The library is loaded anew, from this checkout. For dry runs: what is registered for the end is left out.
        """
        with tempfile.TemporaryFile("w+") as output:
            process = os.fork()
            if process:
                status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
                output.seek(0)
                return status, output.read()
            status = 1
            try:
                os.chdir(self.path)
                changed = self.environment(**environment)
                os.environ.clear()
                os.environ.update(changed)
                for number in (1, 2):
                    os.dup2(output.fileno(), number)
                sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
                for name in [name for name in sys.modules if name.split(".")[0] == "winnow"]:
                    del sys.modules[name]
                sys.path.remove(str(ROOT / "scripts"))
                cli.main(["--cores", "2", *arguments])
            except SystemExit as stop:
                status = stop.code or 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)


def jobs(text: str) -> set[str]:
    """The jobs in Snakemake's account of a run, target rules left out."""
    found = set()
    for block in re.split(r"\n(?=\[)|\n\n", text):
        rule = re.search(r"^(?:local)?(?:rule|checkpoint) (\w+):$", block, re.MULTILINE)
        if rule and "output:" in block:
            wildcards = re.search(r"^\s+wildcards: (.*)$", block, re.MULTILINE)
            values = [item.split("=", 1)[1] for item in wildcards[1].split(", ")] if wildcards else []
            found.add(f"{rule[1]} {'/'.join(values)}")
    return found
