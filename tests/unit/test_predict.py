"""A folder's answers, image by image: that a table which was broken off is taken up, and when it is not."""

import csv
import errno
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from winnow.exports import prediction
from winnow.files import InputError
from winnow.runtime.counting import Count

from . import programs, tiny

# What predict.py does without for all but .safetensors.
ABSENT = ("torch", "torchvision", "safetensors", "pandas", "pyarrow", "scipy", "snakemake")
SECONDS = 60


def command(*arguments):
    """predict.py in a process of its own, where the libraries that it does without cannot be imported."""
    code = (
        f"import runpy, sys; sys.modules |= dict.fromkeys({ABSENT!r}); sys.path.insert(0, {str(programs.SCRIPTS)!r}); "
    )
    code += f"sys.argv = {['predict.py', *map(str, arguments)]!r}; "
    code += f"runpy.run_path({str(programs.SCRIPTS / 'predict.py')!r}, run_name='__main__')"
    return [sys.executable, "-c", code]


def write(path, number, side=16):
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
    pixels[..., number % 3] //= 2
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny.write(tmp_path_factory.mktemp("model") / "model.onnx")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A folder of 700 images, names that need quotes among them; two cannot be read."""
    folder = tmp_path_factory.mktemp("photographs")
    for number in range(700):
        write(folder / f"{number % 7}" / f'{number:03d} "a", b\n.png', number)
    for number in (40, 650):
        (folder / f"{number % 7}" / f'{number:03d} "a", b\n.png').write_bytes(b"not an image")
    return folder


@pytest.fixture(scope="module")
def whole(model, photographs, tmp_path_factory):
    """What a run that nothing breaks off makes of them."""
    output = tmp_path_factory.mktemp("whole") / "a.csv"
    done = subprocess.run(command(model, photographs, "--output", output, "--all"), capture_output=True, text=True)
    assert done.returncode == 1
    assert [path.name for path in output.parent.iterdir()] == ["a.csv"]
    said = done.stderr.splitlines()
    assert sum(line.endswith(".png: not an image in a known format") for line in said) == 2
    assert said[-1] == "2 of 700 images could not be read"
    return output.read_bytes()


def feed(pipe, content, process):
    """Write to a named pipe once a process reads it."""
    end = time.monotonic() + SECONDS
    while True:
        try:
            handle = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
            break
        except OSError as error:
            if error.errno != errno.ENXIO or process.poll() is not None or time.monotonic() > end:
                raise
            time.sleep(0.01)
    with open(handle, "wb") as file:
        file.write(content)


def test_a_killed_run_is_taken_up_and_makes_the_same_table(model, photographs, whole, tmp_path):
    folder, output = tmp_path / "photographs", tmp_path / "out" / "a.csv"
    shutil.copytree(photographs, folder)
    # A pipe for an image: who reads it waits, and can be killed in the middle of the list.
    rows = list(csv.DictReader(io.StringIO(whole.decode(), newline="")))
    held = folder / rows[600]["file"]
    content = held.read_bytes()
    held.unlink()
    os.mkfifo(held)
    run = command(model, folder, "--output", output, "--all")
    partial = output.with_name("a.csv.partial")
    with subprocess.Popen(run, stderr=subprocess.PIPE) as process:
        end = time.monotonic() + SECONDS
        while not partial.exists() or partial.read_bytes().count(b".png") < 512:
            assert process.poll() is None, process.stderr.read().decode()
            assert time.monotonic() < end
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not output.exists()
    # More than whole batches, and a line that was torn, in a field in quotes.
    line = whole.split(b'b\n.png"')[512].split(b"\n", 1)[1]
    with open(partial, "ab") as file:
        file.write(line + b'b\n.png",green,0.4,,' + b"0.1,0.4,0.5\n" + b'"4/')
    with subprocess.Popen(run, stderr=subprocess.PIPE, text=True) as process:
        feed(held, content, process)
        said = process.stderr.read()
    assert process.returncode == 1
    assert said.startswith(f"{partial} has 512 of 700 images: going on from there\n")
    assert said.endswith("\n2 of 700 images could not be read\n")
    assert said.count("not an image in a known format") == 2, "those of the earlier run are named, too"
    assert output.read_bytes() == whole
    assert [path.name for path in output.parent.iterdir()] == ["a.csv"]


def broken_off(monkeypatch, batches, *arguments):
    """A run in this process whose network gives up after some batches."""
    real, calls = prediction.Model.probabilities, []

    def probabilities(model, squares):
        calls.append(len(squares))
        if len(calls) > batches:
            raise InputError("broken off")
        return real(model, squares)

    with monkeypatch.context() as patch:
        patch.setattr(prediction.Model, "probabilities", probabilities)
        with pytest.raises(InputError, match="broken off"):
            programs.run("predict", None, *arguments)


@pytest.fixture
def few(tmp_path, monkeypatch, capsys):
    """A folder of 30 images, and a table of its first 20 that was broken off: (folder, table, model)."""
    monkeypatch.setattr(prediction, "BATCH_IMAGES", 10)
    for number in range(30):
        write(tmp_path / "few" / f"{number:02d}.png", number)
    model = tiny.write(tmp_path / "model.onnx")
    broken_off(monkeypatch, 2, model, tmp_path / "few", "--output", tmp_path / "a.csv")
    said = f"{tmp_path / 'a.csv'}.partial has 20 of 30 rows: the same command goes on from there\n"
    assert capsys.readouterr().err == said
    return tmp_path / "few", tmp_path / "a.csv", model


def asked(monkeypatch, *arguments):
    """How many images a run asks its network about."""
    real, asked = prediction.Model.probabilities, []

    def probabilities(model, squares):
        asked.append(len(squares))
        return real(model, squares)

    with monkeypatch.context() as patch:
        patch.setattr(prediction.Model, "probabilities", probabilities)
        programs.run("predict", None, *arguments)
    return sum(asked)


def test_what_is_answered_is_not_asked_again(few, monkeypatch):
    folder, output, model = few
    assert asked(monkeypatch, model, folder, "--output", output) == 10
    first = output.read_bytes()
    assert asked(monkeypatch, model, folder, "--output", output) == 30, "a table that is whole is made anew"
    assert output.read_bytes() == first


def test_a_table_that_is_torn_anywhere_is_taken_up(few, monkeypatch):
    folder, output, model = few
    partial = output.with_name("a.csv.partial")
    begun = partial.read_bytes()
    programs.run("predict", None, model, folder, "--output", output)
    whole, start = output.read_bytes(), begun.index(b"\n") + 1
    assert begun[start:] == whole[: len(begun) - start]
    ends = [match.end() for match in re.finditer(rb"\n", begun)]
    # Cut within the first line, after the header, within rows, and at the end of a batch.
    for at, left in ((9, 30), (ends[1], 30), (ends[5] + 4, 30), (ends[11], 20), (ends[15] - 1, 20), (ends[-1], 10)):
        partial.write_bytes(begun[:at])
        assert asked(monkeypatch, model, folder, "--output", output) == left
        assert output.read_bytes() == whole
    # Zeros, as a machine that crashes can leave them.
    partial.write_bytes(begun[: ends[14]] + b"\0" * 100 + b"\n")
    assert asked(monkeypatch, model, folder, "--output", output) == 20
    assert output.read_bytes() == whole
    partial.write_bytes(begun[: ends[0]] + b"file,other\n")
    with pytest.raises(InputError, match="damaged: --restart to begin anew"):
        programs.run("predict", None, model, folder, "--output", output)


def test_a_table_of_something_else_is_refused_and_left_as_it_is(few, tmp_path):
    folder, output, model = few
    partial = output.with_name("a.csv.partial")
    begun = partial.read_bytes()
    other = tiny.write(tmp_path / "other.onnx", weights=tiny.BY_COLOR[::-1])
    arguments = ["predict", None, model, folder, "--output", output]

    def refused(says, *arguments):
        with pytest.raises(InputError, match=says) as caught:
            programs.run(*arguments)
        assert str(partial) in str(caught.value)
        assert "--restart" in str(caught.value)
        assert partial.read_bytes() == begun

    refused(r"begun with another model \(SHA-256 [0-9a-f]{12}…, this one's is", *arguments[:2], other, *arguments[3:])
    refused("begun with other columns", *arguments, "--all")
    write(folder / "new.png", 7)
    refused(r"begun with other images, or images that have changed since \(30 of them, now 31\)", *arguments)
    (folder / "new.png").unlink()
    os.utime(folder / "03.png")
    refused("begun with other images, or images that have changed since", *arguments)
    programs.run(*arguments, "--restart")
    assert not partial.exists()
    partial.write_text("file,class\n")
    with pytest.raises(InputError, match="was not begun by this program: rename it"):
        programs.run(*arguments)


def test_two_runs_do_not_write_one_table(few):
    folder, output, model = few
    from winnow.exports.sheets import Sheet

    images = [(path.name, path) for path in sorted(folder.iterdir())]
    sheet = Sheet(output, prediction.load(model), images, False)
    with pytest.raises(InputError, match="is being written by another process"):
        programs.run("predict", None, model, folder, "--output", output)
    sheet.__exit__(InputError, None, None)
    programs.run("predict", None, model, folder, "--output", output)


def peak(model, folder, output):
    """A run's largest resident memory, in MiB."""
    *run, code = command(model, folder, "--output", output)
    # Not what a process is charged with that was forked from a large one.
    code += "; print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    return int(subprocess.run([*run, code], capture_output=True, text=True, check=True).stdout) / 1024


def test_ten_times_the_images_take_no_more_memory(tmp_path):
    model = tiny.write(tmp_path / "model.onnx", size=112, store_size=128)
    write(tmp_path / "one.png", 1, side=128)
    peaks = []
    for count in (250, 2500):
        folder = tmp_path / str(count)
        folder.mkdir()
        for number in range(count):
            os.link(tmp_path / "one.png", folder / f"{number:04d}.png")
        peaks.append(peak(model, folder, tmp_path / f"{count}.csv"))
    # All squares would be 105 MiB more.
    assert peaks[1] - peaks[0] < 20, peaks


class Stream(io.StringIO):
    def __init__(self, terminal):
        super().__init__()
        self.isatty = lambda: terminal


def test_progress_is_lines_now_and_then_where_there_is_no_terminal():
    now = [0.0]
    stream = Stream(False)
    count = Count(1160, "images", 200, stream, lambda: now[0])
    for number in range(960):
        now[0] += 1 / 32
        count.advance("3 unreadable" if number > 500 else "")
    count.close()
    assert stream.getvalue().splitlines() == [
        "680 of 1160 images, 15 s so far, about 15 s left",
        "1160 of 1160 images, 3 unreadable, 30 s so far",
    ]
    stream = Stream(False)
    Count(1, "images", 0, stream).advance()
    assert stream.getvalue() == "", "what is done at once needs no progress"


def test_progress_is_a_bar_on_a_terminal():
    stream = Stream(True)
    count = Count(10, "images", 4, stream)
    count.advance("1 unreadable")
    count.bar.refresh()
    assert "5/10" in stream.getvalue()
    assert "1 unreadable" in stream.getvalue()
    count.close()
