"""Does the interval of the drop cover? Simulated test predictions with a known drop, many times over.

    python benchmarks/intervals.py [--repeats 1000]

Each image has its difficulty, which both networks share in part; each training shifts both networks' accuracies. For
each scenario: how often the interval holds the true drop, how often a network whose drop is just above the tolerance
is said to hold, and the same for the percentiles of a bootstrap that draws seeds and images anew.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import scipy.stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from winnow.answers import verdict

DROP = 0.02
# seeds, test images, accuracy of the unpruned network, how much of what decides an image is the image's own, and the
# standard deviation of each network's accuracy from training to training.
SCENARIOS = (
    (3, 6149, 0.86, 0.8, 0.0),
    (3, 6149, 0.86, 0.8, 0.003),
    (3, 6149, 0.86, 0.8, 0.005),
    (3, 6149, 0.86, 0.8, 0.01),
    (3, 1000, 0.86, 0.8, 0.0),
    (3, 1000, 0.86, 0.7, 0.01),
    (3, 500, 0.94, 0.8, 0.005),
    (5, 1000, 0.90, 0.8, 0.01),
    (5, 2000, 0.90, 0.8, 0.005),
    (10, 1000, 0.90, 0.8, 0.005),
)


def predictions(
    generator: np.random.Generator, seeds: int, images: int, accuracy: float, shared: float, spread: float
) -> tuple[np.ndarray, np.ndarray]:
    """(S, n) bool twice: which images the unpruned and the pruned networks get right, the latter :data:`DROP` less."""
    difficulty = np.sqrt(shared) * generator.standard_normal(images)

    def networks(mean: float) -> np.ndarray:
        limits = scipy.stats.norm.ppf(np.clip(mean + spread * generator.standard_normal(seeds), 1e-4, 1 - 1e-4))
        own = np.sqrt(1 - shared) * generator.standard_normal((seeds, images))
        return difficulty + own < limits[:, None]

    return networks(accuracy), networks(accuracy - DROP)


def bootstrap(generator: np.random.Generator, baseline: np.ndarray, pruned: np.ndarray) -> tuple[float, float]:
    """Percentiles of the mean difference over 200 draws of seeds and images with replacement."""
    differences = (baseline.astype(np.float32) - pruned).T
    images, seeds = differences.shape
    weights = generator.poisson(1, size=(200, images)).astype(np.float32)
    by_seed = weights @ differences / weights.sum(axis=1, keepdims=True)
    drawn = generator.integers(seeds, size=(200, seeds))
    low, high = np.quantile(np.take_along_axis(by_seed, drawn, axis=1).mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def coverage(repeats: int, scenario: tuple, resampled: bool = False) -> tuple[float, float]:
    """Share of intervals that hold the true drop, and of those that lie below it wholly, which would be a wrong *holds*
    with a tolerance right below the true drop."""
    generator = np.random.default_rng(0)
    covered = wrong = 0
    for _ in range(repeats):
        sides = predictions(generator, *scenario)
        low, high = bootstrap(generator, *sides) if resampled else verdict.paired_interval(*sides)[1:]
        covered += low <= DROP <= high
        wrong += high < DROP
    return covered / repeats, wrong / repeats


def main(arguments: argparse.Namespace) -> None:
    print("seeds  images  accuracy  shared  spread  | covers  wrong holds | bootstrap: covers  wrong holds")
    for scenario in SCENARIOS:
        found = *coverage(arguments.repeats, scenario), *coverage(arguments.repeats // 4, scenario, resampled=True)
        seeds, images, accuracy, shared, spread = scenario
        shares = [f"{100 * share:.1f} %" for share in found]
        print(f"{seeds:5}  {images:6}  {accuracy:8}  {shared:6}  {spread:6}  | {shares[0]:>6}  {shares[1]:>11} | "
              f"{shares[2]:>17}  {shares[3]:>11}", flush=True)  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1000)
    main(parser.parse_args())
