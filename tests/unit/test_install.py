"""``make`` installs what is pinned where it is not there, and empties nothing that a link points to."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import urllib.parse
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = (ROOT / "envs/install.sh").read_text()

# In the place of Python, pip and uv: each writes its command down; `venv --clear` empties .venv as the real one does,
# through a symbolic link too. What is to be reached is so where a file `reached` is.
STUB = """#!/bin/sh
echo "$*" >> commands
case "$*" in
    "-m venv --clear .venv") mkdir -p .venv && rm -rf .venv/* && mkdir -p .venv/bin .venv/lib/python3.x/site-packages
        cp "$0" .venv/bin/python ;;
    *"--target "*) tool=${*#*--target } && tool=${tool%% *} && mkdir "$tool/bin" && cp "$0" "$tool/bin/uv" ;;
    *urlopen*) test -e reached ;;
    *"-r envs/"*) test ! -e fails ;;
esac
"""
INSTALL = "pip install --python .venv/bin/python --no-deps"
BASE = f"{INSTALL} --require-hashes -r envs/requirements.txt"


class Place:
    """A checkout with an installer, whose Python is a stub."""

    def __init__(self, path: Path):
        self.path = path
        (path / "envs/extras").mkdir(parents=True)
        (path / "bin").mkdir()
        for name in ("Makefile", "envs/install.sh"):
            shutil.copy2(ROOT / name, path / name)
        for name in ("requirements", "torch", "torch-cpu", "uv", "extras/dev", "extras/photos"):
            (path / f"envs/{name}.txt").write_text(f"{name.rpartition('/')[2]}==1\n")
        self.python = path / "python"
        self.program("../python", STUB)
        self.gpus(0)

    def program(self, name: str, text: str) -> None:
        (self.path / "bin" / name).write_text(text)
        (self.path / "bin" / name).chmod(0o755)

    def gpus(self, count: int) -> None:
        lines = "".join(f"echo 'GPU {number}: a card (UUID: GPU-{number})'\n" for number in range(count))
        self.program("nvidia-smi", f"#!/bin/sh\n{lines}exit {0 if count else 9}\n")

    def make(self, *arguments: str, status: int = 0, **environment: str) -> tuple[list[str], str]:
        """Make the environment; return the commands that install something, and what was said."""
        commands = self.path / "commands"
        commands.write_text("")
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("MAKE", "PIP_", "UV_")) and name not in ("TORCH", "TORCH_INDEX", "EXTRAS", "PYTHON")
        }
        done = subprocess.run(
            ["make", *(arguments or ("install",)), f"PYTHON={self.python}"],
            cwd=self.path,
            env=inherited | {"PATH": f"{self.path / 'bin'}:{os.environ['PATH']}"} | environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == status, done.stdout + done.stderr
        kept = [line for line in commands.read_text().splitlines() if line.startswith(("pip install", "-m venv"))]
        return kept, done.stdout + done.stderr


pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere torch has no wheels with CUDA")


@pytest.fixture
def place(tmp_path) -> Place:
    """A checkout with an environment."""
    result = Place(tmp_path / "checkout")
    commands, _ = result.make()
    assert commands == ["-m venv --clear .venv", f"{BASE} -r envs/torch.txt"]
    return result


def linked(place: Place, path: Path) -> Place:
    """Another checkout, whose environment is a link to that one's."""
    result = Place(path)
    (path / ".venv").symlink_to(place.path / ".venv")
    return result


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_nothing_is_installed_twice_and_nothing_is_said(place):
    assert place.make() == ([], "")


def test_times_install_nothing(place):
    for path in place.path.rglob("*"):
        os.utime(path)
    os.utime(place.path / ".venv/installed", (0, 0))
    assert place.make()[0] == []


@pytest.mark.parametrize("file", ["requirements.txt", "torch.txt"])
def test_another_pin_makes_the_environment_anew_whatever_the_times(place, file):
    path = place.path / "envs" / file
    path.write_text(path.read_text().replace("==1", "==2"))
    os.utime(path, (0, 0))
    assert "-m venv --clear .venv" in place.make()[0]
    assert place.make()[0] == []


def test_an_environment_that_was_not_finished_is_made_anew(tmp_path):
    place = Place(tmp_path / "checkout")
    (place.path / "fails").touch()
    place.make(status=2)
    (place.path / "fails").unlink()
    assert "-m venv --clear .venv" in place.make()[0]
    assert place.make()[0] == []


@pytest.mark.parametrize("said", ["", "a digest that an older installer left\n"])
def test_an_environment_that_does_not_say_what_it_has_is_made_anew(place, said):
    (place.path / ".venv/installed").write_text(said)
    assert "-m venv --clear .venv" in place.make()[0]


class TestExtras:
    def test_an_extra_is_added_to_what_is_there_and_stays(self, place):
        assert place.make("EXTRAS=photos", "install")[0] == [f"{INSTALL} --require-hashes -r envs/extras/photos.txt"]
        assert place.make("EXTRAS=photos", "install")[0] == place.make()[0] == []
        assert place.make("EXTRAS=all", "install")[0] == [f"{INSTALL} --require-hashes -r envs/extras/dev.txt"]
        (place.path / "envs/requirements.txt").write_text("requirements==2\n")
        renewed = "-r envs/torch.txt -r envs/extras/dev.txt -r envs/extras/photos.txt"
        assert place.make()[0][-1] == f"{BASE} {renewed}"

    def test_an_extra_that_was_not_finished_is_added_again(self, place):
        (place.path / "fails").touch()
        place.make("EXTRAS=photos", "install", status=2)
        (place.path / "fails").unlink()
        assert place.make("EXTRAS=photos", "install")[0] != []
        assert place.make("EXTRAS=photos", "install")[0] == []

    def test_another_pin_of_an_extra_that_is_there_makes_all_anew_and_one_of_another_nothing(self, place):
        place.make("EXTRAS=photos", "install")
        (place.path / "envs/extras/dev.txt").write_text("dev==2\n")
        assert place.make()[0] == []
        (place.path / "envs/extras/photos.txt").write_text("photos==2\n")
        assert place.make()[0][0] == "-m venv --clear .venv"

    def test_a_name_that_there_is_not_is_refused_with_those_that_there_are(self, place):
        commands, said = place.make("EXTRAS=photo", "install", status=2)
        assert commands == []
        assert "there is no photo; all, or some of: dev photos" in said


@linux
class TestWheels:
    """Which wheels of torch: by the GPU that is seen, by TORCH, by what can be reached."""

    CPU = (BASE, f"{INSTALL} --default-index https://download.pytorch.org/whl/cpu -r envs/torch-cpu.txt")
    CUDA = (f"{BASE} -r envs/torch.txt",)

    @pytest.mark.parametrize(
        ("gpus", "arguments", "wheels"),
        [(0, (), CPU), (2, (), CUDA), (0, ("TORCH=cuda",), CUDA), (2, ("TORCH=cpu",), CPU)],
    )
    def test_a_gpu_that_is_seen_or_torch_decides(self, tmp_path, gpus, arguments, wheels):
        place = Place(tmp_path / "checkout")
        place.gpus(gpus)
        (place.path / "reached").touch()
        assert place.make("install", *arguments)[0][1:] == list(wheels)
        # What is there stays, whatever is seen now; what is asked for does not.
        place.gpus(2 - gpus)
        assert place.make("install")[0] == []
        other = "cuda" if wheels == self.CPU else "cpu"
        assert place.make("install", f"TORCH={other}")[0][1:] == list(self.CUDA if other == "cuda" else self.CPU)

    def test_where_the_index_cannot_be_reached_the_default_one_is_taken_and_one_line_says_so(self, tmp_path):
        place = Place(tmp_path / "checkout")
        commands, said = place.make()
        assert commands[1:] == list(self.CUDA)
        (line,) = [line for line in said.splitlines() if "cannot be reached" in line]
        assert "https://download.pytorch.org/whl/cpu" in line
        # It was asked for wheels for CPUs, and is again only where something is to be installed.
        (place.path / "reached").touch()
        assert place.make("install", "TORCH=cpu") == ([], "")
        (place.path / "envs/torch.txt").write_text("torch==2\n")
        assert place.make()[0][1:] == list(self.CPU)

    def test_another_word_is_refused(self, tmp_path):
        assert "TORCH=rocm: cpu or cuda" in Place(tmp_path / "checkout").make("TORCH=rocm", "install", status=2)[1]


class TestLinks:
    def test_a_linked_environment_with_the_same_pins_is_used(self, place, tmp_path):
        before = contents(place.path / ".venv")
        assert linked(place, tmp_path / "other").make() == ([], "")
        assert contents(place.path / ".venv") == before

    def test_one_with_other_pins_is_left_alone_and_the_ways_out_are_said(self, place, tmp_path):
        other = linked(place, tmp_path / "other")
        (other.path / "envs/requirements.txt").write_text("torch==2\n")
        before = contents(place.path / ".venv")
        commands, said = other.make(status=2)
        assert commands == []
        assert contents(place.path / ".venv") == before
        assert f"{other.path / '.venv'} is a symbolic link to {place.path / '.venv'}" in said
        # The first way out: an environment of its own.
        assert "rm .venv" in said
        (other.path / ".venv").unlink()
        assert "-m venv --clear .venv" in other.make()[0]
        assert contents(place.path / ".venv") == before
        # The second: the environment renewed where it belongs.
        (other.path / "envs/requirements.txt").write_text("torch==3\n")
        (place.path / "envs/requirements.txt").write_text("torch==3\n")
        shutil.rmtree(other.path / ".venv")
        (other.path / ".venv").symlink_to(place.path / ".venv")
        other.make(status=2)
        place.make()
        assert other.make() == ([], "")

    def test_to_one_that_lacks_an_extra_nothing_is_added(self, place, tmp_path):
        before = contents(place.path / ".venv")
        commands, said = linked(place, tmp_path / "other").make("EXTRAS=photos", "install", status=2)
        assert commands == []
        assert "lacks envs/extras/photos.txt" in said
        assert contents(place.path / ".venv") == before

    def test_a_link_to_nothing_is_left_alone(self, place, tmp_path):
        other = linked(place, tmp_path / "other")
        shutil.rmtree(place.path / ".venv")
        assert "is a symbolic link" in other.make(status=2)[1]
        assert not (place.path / ".venv").exists()

    def test_results_on_another_disk_outlive_clean(self, tmp_path):
        place, disk = Place(tmp_path / "checkout"), tmp_path / "disk"
        disk.mkdir()
        (disk / "cell").touch()
        (place.path / "results").symlink_to(disk)
        (place.path / ".snakemake/log").mkdir(parents=True)
        assert f"results is a symbolic link to {disk}" in place.make("clean")[1]
        assert (place.path / "results/cell").exists()
        assert not (place.path / ".snakemake").exists()
        (place.path / "results").unlink()
        (place.path / "results").mkdir()
        (place.path / "results/datasets").symlink_to(disk)
        place.make("clean")
        assert not (place.path / "results").exists()
        assert (disk / "cell").exists()


def wheel(name: str, version: str, files: dict[str, str]) -> tuple[str, bytes]:
    """A wheel of text files: its name and its content."""
    module = name.replace("-", "_")
    about = f"{module}-{version}.dist-info"
    files = files | {
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = []
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path, text in files.items():
            hashed = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            rows.append(f"{path},sha256={hashed},{len(text.encode())}\n")
            entry = zipfile.ZipInfo(path)
            entry.external_attr = 0o100755 << 16
            archive.writestr(entry, text)
        archive.writestr(f"{about}/RECORD", "".join(rows) + f"{about}/RECORD,,\n")
    return f"{module}-{version}-py3-none-any.whl", content.getvalue()


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextlib.contextmanager
def served(indexes: dict[str, list[tuple[str, bytes]]]) -> Iterator[tuple[str, list[str]]]:
    """Package indexes on loopback, as PEP 503 has them: the address, and the paths that were asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            index, name, *rest = urllib.parse.unquote(self.path).strip("/").split("/")
            files = {file: body for file, body in indexes[index] if file.split("-")[0] == name.replace("-", "_")}
            links = (
                f'<a href="/{index}/{name}/{urllib.parse.quote(file)}#sha256={digest(body)}">{file}</a>'
                for file, body in files.items()
            )
            body = files[rest[0]] if rest else "".join(links).encode()
            self.send_response(200 if files else 404)
            self.send_header("Content-Type", "application/octet-stream" if rest else "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def pin(requirement: str, *wheels: tuple[str, bytes]) -> str:
    return " \\\n    ".join([requirement, *(f"--hash=sha256:{digest(body)}" for _, body in wheels)]) + "\n"


@linux
@pytest.mark.slow("three environments are made, by pip and uv themselves")
def test_pip_and_uv_install_it_from_package_indexes(tmp_path):
    """On loopback, with wheels of a few bytes: that torch and torchvision come from one place, with their hashes."""
    imports = re.findall(r"[\w.]+", " ".join(re.findall(r"import ([\w., ]+)", SCRIPT.partition("# Compile what")[2])))
    modules = {"/".join(name.split(".")[: end + 1]) for name in imports for end in range(name.count(".") + 1)}
    texts = {f"{module}/__init__.py": "" for module in modules - {"torch", "torchvision"}}
    base = wheel("base", "1", texts | {"numpy/tests/test_all.py": "", "numpy/testing/__init__.py": ""})
    uv = wheel("uv", "1", {"uv-1.data/scripts/uv": f'#!/bin/sh\nexec {Path(sys.executable).with_name("uv")} "$@"\n'})
    nvidia = wheel("nvidia-cublas", "1", {"nvidia/cublas.py": ""})
    torch, vision = (
        {v: wheel(name, v, {f"{name}/__init__.py": ""}) for v in ("2", "2+cpu")} for name in ("torch", "torchvision")
    )
    indexes = {"default": [base, uv, nvidia, torch["2"], vision["2"]], "cpu": [torch["2+cpu"], vision["2+cpu"]]}

    place = Place(tmp_path / "checkout")
    place.python = Path(sys.executable)
    envs = place.path / "envs"
    (envs / "uv.txt").write_text(pin("uv==1", uv))
    (envs / "requirements.txt").write_text(pin("base==1", base))
    (envs / "torch.txt").write_text(
        pin("nvidia-cublas==1", nvidia) + pin("torch==2", torch["2"]) + pin("torchvision==2", vision["2"])
    )
    (envs / "torch-cpu.txt").write_text(pin("torch==2+cpu", torch["2+cpu"]) + "torchvision==2+cpu\n")

    def installed() -> set[str]:
        site = next((place.path / ".venv/lib").glob("python3*/site-packages"))
        return {path.name.removesuffix(".dist-info") for path in site.glob("*.dist-info")} - {"pip", "setuptools"}

    with served(indexes) as (address, asked):
        environment = {
            **{
                "PIP_CONFIG_FILE": os.devnull,
                "PIP_INDEX_URL": f"{address}/default",
                "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            },
            **{"UV_NO_CONFIG": "1", "UV_DEFAULT_INDEX": f"{address}/default", "UV_CACHE_DIR": str(tmp_path / "cache")},
            "TORCH_INDEX": f"{address}/cpu",
        }
        place.make(**environment)
        names = {name for name in installed() if not name.startswith(("pip-", "setuptools-"))}
        assert names == {"base-1", "torch-2+cpu", "torchvision-2+cpu"}
        assert not [path for path in asked if re.match("/default/(torch|nvidia)", path)]
        (numpy,) = (place.path / ".venv/lib").glob("python3*/site-packages/numpy")
        assert not (numpy / "tests").exists()
        assert (numpy / "testing").exists()
        assert place.make(**environment) == ([], "")

        # A wheel that is not the pinned one is refused, and the environment is not taken for finished.
        before = (envs / "torch-cpu.txt").read_text()
        (envs / "torch-cpu.txt").write_text(pin("torch==2+cpu", torch["2"]) + "torchvision==2+cpu\n")
        assert "hash mismatch" in place.make(status=2, **environment)[1].lower()
        (envs / "torch-cpu.txt").write_text(before)

        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}/cpu"
            assert f"torch: {nowhere}, which has" in place.make(**environment | {"TORCH_INDEX": nowhere})[1]
        assert {"nvidia_cublas-1", "torch-2", "torchvision-2"} <= installed()
