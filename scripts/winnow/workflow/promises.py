"""What a grid can find out, said before it trains anything: the smallest drop of accuracy that its test images can tell
from none, and how many trainings it takes at most. Imports nothing heavy.
"""

from __future__ import annotations

from pathlib import Path

from winnow.data import folders
from winnow.files import InputError, read_json
from winnow.training import rates
from winnow.workflow import defaults, wiring
from winnow.workflow.certainty import smallest_drop
from winnow.workflow.config import Config, Split
from winnow.workflow.defaults import FOLDS


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
        if dataset.path:
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
