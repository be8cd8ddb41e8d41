"""What a grid can find out, said before it trains anything: the smallest drop of accuracy that its test images can tell
from none, and how many trainings it takes at most. Imports nothing heavy.
"""

from __future__ import annotations

import math
from pathlib import Path
from statistics import NormalDist

from winnow.data import folders
from winnow.files import InputError, read_json
from winnow.training import rates
from winnow.workflow import defaults, wiring
from winnow.workflow.config import Config, Split
from winnow.workflow.defaults import FOLDS

# On how many of the images a pruned network and the unpruned one disagree, where neither is better: from and to.
DISAGREEMENT = 0.02, 0.06
# Of this, what is the images' doing and comes again in every training; the rest averages out over trainings.
LASTING = 0.3
# How much a drop scatters from training to training, as a share of 1.
SPREAD = 0.003
# One image lost and one won are made up, as winnow.answers.intervals does.
MADE_UP = 2
CONFIDENCE = 0.95
# Trainings of each network that is judged: at most, and, with K folds, one for each of them.
MOST = 10


def half_width(images: int, trainings: int, disagreement: float, rounds: float | None = None) -> float:
    """Half of the interval of a drop that is truly none, in points, of which 100 make 1.

    An interval's variance is that of the images, (n p + 2) / ((n + 1)(n + 2)) with its two made-up ones, and that of
    the trainings. p, the mean square of an image's difference over the trainings that test it, is the disagreement
    times what lasts of it and an R-th of what does not.

    Parameters
    ----------
    images
        n: images that judge.
    trainings
        S: of each of the two networks.
    disagreement
        On which share of the images the two are not both right or both wrong.
    rounds
        R: how many of the trainings test an image; None: all of them.
    """
    square = disagreement * (LASTING + (1 - LASTING) / (rounds or trainings))
    of_images = (images * square + MADE_UP) / ((images + MADE_UP - 1) * (images + MADE_UP))
    variance = of_images + SPREAD**2 / trainings
    return 100 * student((1 + CONFIDENCE) / 2, max(images - 1, 1)) * math.sqrt(variance)


def student(share: float, freedom: float) -> float:
    """Student's quantile: the expansion about the normal one [Abramowitz & Stegun 1964, 26.7.5], good to 0.1 % from
    four degrees of freedom on."""
    z = NormalDist().inv_cdf(share)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum(term / freedom**power for power, term in enumerate(terms))


def smallest_drop(images: int, folds: int | None = None) -> tuple[float, float]:
    """The smallest drop that can be told from none, in points: from and to, by how much the networks disagree.

    With folds, after one round; without, after :data:`MOST` trainings: more would not help much.

    Parameters
    ----------
    images
        Test images, or, with folds, all images: each is tested on.
    folds
        None without.
    """
    trainings, rounds = (folds, 1) if folds else (MOST, None)
    return tuple(half_width(images, trainings, disagreement, rounds) for disagreement in DISAGREEMENT)


def sentence(test_images: int, images: int, folds: int | None, tolerance: float, suggested: int = FOLDS) -> str:
    """What can be certified, and whether that is enough, in words.

    Parameters
    ----------
    test_images, images
        On how many one tests without folds, and how many there are.
    folds
        Of the data set; None: none.
    suggested
        Without folds: how many to compare with; 0 where the data set's own split forbids them.
    """
    if folds:
        low, high = smallest_drop(images, folds)
        text = f"{images} images in {folds} folds: no drop below {low:.1f} to {high:.1f} points can be told from none"
    else:
        low, high = smallest_drop(test_images)
        text = f"{test_images} test images: no drop below {low:.1f} points can be told from none"
        if suggested:
            better = " to ".join(f"{each:.1f}" for each in smallest_drop(images, suggested))
            text += f"; with folds: {suggested}, where each of the {images} images judges, {better}"
    enough = "enough images" if high <= tolerance else "too few images" if low > tolerance else "perhaps enough images"
    return f"{text}. Tolerance: {tolerance:g} point{'s' * (tolerance != 1)}; {enough} to be sure of that."


def of_images(config: Config, name: str, test: int, images: int, least: int, official: bool) -> str:
    """The same of a data set of so many images, as a line.

    Parameters
    ----------
    test
        How many of them test, without folds.
    least
        Images of the smallest class.
    official
        Whether its source has split it.
    """
    suggested = 0 if official or least < FOLDS else FOLDS
    return f"{name}: " + sentence(test, images, config.datasets[name].folds, config.tolerance, suggested)


def of_searches(count: int) -> str:
    """How many learning rates are searched and what that takes, in words; empty for none."""
    if not count:
        return ""
    found = "1 learning rate is found first," if count == 1 else f"{count} learning rates are found first, each"
    return f"{found} by 3 to {rates.MOST} trainings for a fourth of the epochs"


def of_data_set(config: Config, name: str) -> str:
    """The same of a data set, as a line; empty where it is not known yet how many images it has.

    Its store and split below ``results/`` say so; where there is none, a folder's files are counted.
    """
    dataset, folds = config.datasets[name], config.datasets[name].folds
    manifest, split = (Path(each) for each in (f"results/datasets/{name}/manifest.json", wiring.split(name, None)))
    official, least = dataset.source == "flowers102", FOLDS
    try:
        found = None
        if dataset.source == "folder":
            found = defaults.survey(Path(dataset.path), folders.Rules.of(dataset.model_dump()))
        if found is not None:
            official, least = found.official, found.least
        if manifest.exists() and (folds or split.exists()):
            # Here, since it takes a library that the Snakefile, which has no store to look into at first, does without.
            from winnow.tables import read_provenance

            images = read_json(manifest)["images"]
            test = 0 if folds else read_provenance(split)["counts"]["test"]
        elif found is not None:
            test = found.test if official else round((dataset.split or Split()).test * found.total)
            images = found.total
        else:
            return ""
    except InputError:
        return ""  # It is told where it is in the way.
    return of_images(config, name, test, images, least, official)
