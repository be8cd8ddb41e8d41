"""The fit of a last layer, on the device in float32, against scikit-learn's on the processor in float64.

python benchmarks/regression.py [--images 5000] [--features 4096] [--classes 102] [--device cpu] [--repeats 3]

Features are drawn: correlated, not negative, and with classes that can be told apart.
"""

from __future__ import annotations

import argparse
import os
import time

from paired import compare, machine

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from winnow.importance import regression


def main(arguments: argparse.Namespace) -> None:
    machine(arguments.threads)
    images, width, classes = arguments.images, arguments.features, arguments.classes
    generator = torch.Generator().manual_seed(0)
    hidden = max(1, width // 4)
    labels = torch.arange(images) % classes
    spread = torch.logspace(0, -1.5, hidden)
    kinds = torch.randn(classes, hidden, generator=generator)
    x = (torch.randn(images, hidden, generator=generator) + arguments.apart * kinds[labels]) * spread
    x = torch.relu(x @ torch.randn(hidden, width, generator=generator) / hidden**0.5)
    x += torch.relu(torch.randn(images, width, generator=generator) / 20)
    found = {}

    def ours():
        weight, bias = regression.fit(x.to(arguments.device, copy=True), labels.to(arguments.device), classes)
        found["ours"] = (x.double() @ weight.T.cpu() + bias.cpu()).softmax(1).numpy()

    def theirs():
        scaled = StandardScaler().fit_transform(x.double().numpy())
        model = LogisticRegression(C=1.0, tol=1e-6, max_iter=1000).fit(scaled, labels.numpy())
        found["theirs"] = model.predict_proba(scaled)

    name = f"scikit-learn / ours, {images} images x {width} features x {classes} classes"
    clock = time.process_time if arguments.processor else time.perf_counter
    compare(name, theirs, ours, arguments.repeats, warm_up=False, clock=clock)
    print(f"probabilities differ by at most {np.abs(found['ours'] - found['theirs']).max():.1e}")


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--images", type=int, default=5000)
    result.add_argument("--features", type=int, default=4096)
    result.add_argument("--classes", type=int, default=102)
    result.add_argument("--apart", type=float, default=0.3, help="how far classes are apart, in standard deviations")
    result.add_argument("--device", default="cpu")
    result.add_argument("--processor", action="store_true", help="count the processor's time, not the wall's")
    result.add_argument("--repeats", type=int, default=3)
    result.add_argument("--threads", type=int, default=os.cpu_count())
    return result


if __name__ == "__main__":
    main(parser().parse_args())
