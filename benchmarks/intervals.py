"""Does the interval of the drop cover? Simulated test predictions with a known drop, many times over.

    python benchmarks/intervals.py [--repeats 1000]

Each image has its difficulty, which both networks share in part; each training shifts both networks' accuracies. For
each scenario: how often the interval holds the true drop, how often a network whose drop is just above the tolerance
is said to hold, and the same for the percentiles of a bootstrap that draws seeds and images anew. Then the same of the
mean over classes, of which one is rare; and how often a class is said to be lost, where none loses anything, where each
loses just as much as it may, and where one is never found.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import scipy.stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from winnow.answers import intervals

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

# seeds, then test images, accuracy of the unpruned network and its drop, each by class; shared and spread as above. The
# mean over classes drops by DROP in each.
EVEN, FLOWERS = np.full(5, 200), np.linspace(20, 238, 102).astype(int)
RARE, RARER, DEFECT = np.array([200] * 4 + [20]), np.array([200] * 4 + [5]), np.array([950, 50])
IN_THE_LAST = np.array([0, 0, 0, 0, 5 * DROP])
CLASS_SCENARIOS = {
    "5 × 200": (3, EVEN, np.full(5, 0.9), np.full(5, DROP), 0.8, 0.005),
    "5 × 200, the last one loses": (3, EVEN, np.full(5, 0.9), IN_THE_LAST, 0.8, 0.005),
    "102 × 20": (3, np.full(102, 20), np.full(102, 0.86), np.full(102, DROP), 0.8, 0.005),
    "102 × 20 to 238": (3, FLOWERS, np.full(102, 0.86), np.full(102, DROP), 0.8, 0.005),
    "4 × 200 and 20": (3, RARE, np.array([0.95] * 4 + [0.7]), IN_THE_LAST, 0.8, 0.005),
    "4 × 200 and 20, 10 seeds": (10, RARE, np.array([0.95] * 4 + [0.7]), IN_THE_LAST, 0.8, 0.005),
    "4 × 200 and 5": (3, RARER, np.array([0.95] * 4 + [0.7]), IN_THE_LAST, 0.8, 0.005),
    "950 and 50": (3, DEFECT, np.array([0.98, 0.6]), np.array([0, 2 * DROP]), 0.8, 0.005),
    "950 and 50, one seed": (1, DEFECT, np.array([0.98, 0.6]), np.array([0, 2 * DROP]), 0.8, 0.0),
}
MARGIN = 10.0


def predictions(
    generator: np.random.Generator,
    seeds: int,
    images: int,
    accuracy: float | np.ndarray,
    shared: float,
    spread: float,
    drop: float | np.ndarray = DROP,
) -> tuple[np.ndarray, np.ndarray]:
    """(S, n) bool twice: which images the unpruned and the pruned networks get right, the latter ``drop`` less.

    Accuracy and drop are of all images, or (n,) by image.
    """
    difficulty = np.sqrt(shared) * generator.standard_normal(images)

    def networks(mean: float | np.ndarray) -> np.ndarray:
        shifts = spread * generator.standard_normal((seeds, 1))
        limits = scipy.stats.norm.ppf(np.clip(mean + shifts, 1e-4, 1 - 1e-4))
        own = np.sqrt(1 - shared) * generator.standard_normal((seeds, images))
        return difficulty + own < limits

    return networks(accuracy), networks(accuracy - drop)


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
        low, high = bootstrap(generator, *sides) if resampled else intervals.paired_interval(*sides)[1:]
        covered += low <= DROP <= high
        wrong += high < DROP
    return covered / repeats, wrong / repeats


def drawn(
    generator: np.random.Generator,
    seeds: int,
    counts: np.ndarray,
    accuracy: np.ndarray,
    drop: np.ndarray,
    shared: float,
    spread: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predictions of images in classes, and the classes: counts, accuracy and drop are by class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    sides = predictions(generator, seeds, len(labels), accuracy[labels], shared, spread, drop[labels])
    return *sides, labels


def class_coverage(repeats: int, scenario: tuple) -> tuple[float, float]:
    """The same as :func:`coverage` for the drop of the mean over classes."""
    generator = np.random.default_rng(0)
    found = [intervals.paired_interval(*drawn(generator, *scenario)) for _ in range(repeats)]
    return np.mean([low <= DROP <= high for _, low, high in found]), np.mean([high < DROP for *_, high in found])


def alarms(repeats: int, scenario: tuple) -> tuple[float, float, float]:
    """How often a class is said to be lost: any, where none loses anything; a class, where each loses the margin; and
    the last one, where the pruned networks never find it."""
    seeds, counts, accuracy, _, shared, spread = scenario

    def lost(drop: float, never: int | None = None) -> list[tuple[str, ...]]:
        generator = np.random.default_rng(0)
        found = []
        for _ in range(repeats):
            drops = np.full(len(counts), drop)
            baseline, pruned, labels = drawn(generator, seeds, counts, accuracy, drops, shared, spread)
            pruned &= labels != never
            found.append(intervals.lost_classes(baseline, pruned, labels, MARGIN))
        return found

    last = len(counts) - 1
    return (
        np.mean([bool(names) for names in lost(0.0)]),
        np.mean([len(names) / len(counts) for names in lost(MARGIN / 100)]),
        np.mean([str(last) in names for names in lost(0.0, never=last)]),
    )


def main(arguments: argparse.Namespace) -> None:
    print("seeds  images  accuracy  shared  spread  | covers  wrong holds | bootstrap: covers  wrong holds")
    for scenario in SCENARIOS:
        found = *coverage(arguments.repeats, scenario), *coverage(arguments.repeats // 4, scenario, resampled=True)
        seeds, images, accuracy, shared, spread = scenario
        shares = [f"{100 * share:.1f} %" for share in found]
        print(f"{seeds:5}  {images:6}  {accuracy:8}  {shared:6}  {spread:6}  | {shares[0]:>6}  {shares[1]:>11} | "
              f"{shares[2]:>17}  {shares[3]:>11}", flush=True)  # fmt: skip
    print(f"\n{'classes':29} covers  wrong holds | lost: falsely  at the margin  never found")
    for name, scenario in CLASS_SCENARIOS.items():
        found = *class_coverage(arguments.repeats, scenario), *alarms(arguments.repeats, scenario)
        shares = [f"{100 * share:.1f} %" for share in found]
        print(f"{name:29} {shares[0]:>6}  {shares[1]:>11} | {shares[2]:>13}  {shares[3]:>13}  {shares[4]:>11}",
              flush=True)  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1000)
    main(parser.parse_args())
