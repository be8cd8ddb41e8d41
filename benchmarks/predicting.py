"""What predict.py takes for a folder of photographs: python benchmarks/predicting.py MODEL [--images 500 5000]

Draws photographs of 400 × 300 pixels, each of which lies in the folder many times over, and makes the CSV of so many by
an exported network. Memory is the largest that was resident, of the whole process.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from copies import encoded, photograph

PROGRAM = Path(__file__).resolve().parents[1] / "scripts" / "predict.py"
DRAWN = 50
# Not what a process is charged with that was forked from a larger one.
CODE = """
import runpy, sys
sys.argv[1:], sys.path[0] = sys.argv[2:], sys.argv[1]
runpy.run_path(sys.path[0] + "/predict.py", run_name="__main__")
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def main(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        drawn = []
        for seed in range(DRAWN):
            drawn.append(root / f"{seed}.jpg")
            drawn[-1].write_bytes(encoded(photograph(seed), 90))
        for count in arguments.images:
            folder = root / str(count)
            folder.mkdir()
            for number in range(count):
                os.link(drawn[number % DRAWN], folder / f"{number:06d}.jpg")
            command = [sys.executable, "-c", CODE, PROGRAM.parent, arguments.model, folder, "--output", root / "a.csv"]
            start = time.perf_counter()
            done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True, check=True)
            seconds = time.perf_counter() - start
            print(f"{count} photographs: {int(done.stdout) / 1024:.0f} MiB, {1000 * seconds / count:.1f} ms each")


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("model", type=Path, help="an exported folder, or a file: .onnx is run without torch")
    result.add_argument("--images", type=int, nargs="+", default=[500, 5000], help="how many (default: 500 5000)")
    return result


if __name__ == "__main__":
    main(parser().parse_args())
