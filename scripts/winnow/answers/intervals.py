"""How sure a drop of accuracy is, over test images and trainings at once: one estimator, for all that speaks of it.

The drop of a pruned network is the unpruned network's test accuracy less its own, both trained with the same recipe and
seed. With d(s, i) = unpruned right − pruned right, of training s on image i, the model is d = μ + training + image +
rest, each random, so that the variance of the mean over S trainings and n images is

    V = A / n + E / (R n) + τ² / S

where A is the variance of images, E of the rest, τ² of trainings, and R the number of trainings that test an image. It
is R = S where all test all images (crossed), and R = S / K with K folds, where a training tests the images of its fold.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import scipy.optimize
import scipy.special

CONFIDENCE = 0.95
# Networks that are held against the same unpruned trainings have differences that correlate by about 1/2, and squares
# of differences that correlate by the square of that.
SHARED = 0.25
# How many of the made-up images count, as large as an image is at most, in how large they are.
WHOLE = 1.0
# Probabilities at which the distribution of a variance is looked at: dense at both ends, whence the tails of t come.
_PLACES = scipy.special.expit(np.linspace(-16, 16, 65))
_WEIGHTS = _PLACES * (1 - _PLACES) / (_PLACES * (1 - _PLACES)).sum()
# The smallest variance of trainings that is believed: its share of the smallest tenth, by chance, of what is expected.
_BY_CHANCE = 0.1


class Interval(NamedTuple):
    """A drop of accuracy and the bounds of its interval, as shares of 1."""

    drop: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Parts:
    """What trainings and test images say of one drop. Variances are of shares of 1.

    Attributes
    ----------
    drop : float
    image, image_freedom : float
        The images' part of V, with the made-up images, and its degrees of freedom.
    rest : float
        How much of ``image`` more trainings take away: E / (R n). Where no image is tested twice it is not told from
        A / n, and all that was not made up counts.
    training, freedom : float
        s², the variance between the trainings' own drops, and its degrees of freedom: S − 1.
    noise : float
        What s² is expected to be where trainings do not differ, since each tests its images only: τ² is about
        s² − noise.
    share : float
        How much of τ² is left in the mean: 1 / S.
    """

    drop: float
    image: float
    image_freedom: float
    rest: float
    training: float
    freedom: float
    noise: float
    share: float


@dataclasses.dataclass(frozen=True)
class Prior:
    """What other networks say of a variance between trainings: that it is about noise + ``between``.

    Attributes
    ----------
    between : float
        τ², as a typical network has it.
    scale : float
        By how much the typical network is above or below noise + ``between``.
    freedom : float
        How many degrees of freedom that is worth: few where networks differ more than chance has it.
    most : float
        More degrees of freedom than all the networks have together are none's.
    """

    between: float
    scale: float
    freedom: float
    most: float


def parts(baseline: np.ndarray, pruned: np.ndarray, labels: np.ndarray | None = None) -> Parts:
    """The drop of accuracy, or with labels that of the mean over classes, and the parts of its variance.

    Each image weighs the same whatever the number of its tests: its difference is the mean of them. The images' part is
    the variance of these, over n. It needs no correction for folds: what training images two folds share moves their
    networks alike, and the differences between networks that saw other images of one kind are small and are found in
    τ² [Bayle, Bayle, Janson & Mackey, Cross-validation confidence intervals for test error, 2020: within folds, errors
    on test images are as good as independent]. A variance of 1/K + 1/(K − 1) in place of 1/K between folds [Nadeau &
    Bengio, Machine Learning 52, 2003] is for the drop over new training sets, and is more than twice too large for one.

    Two made-up images, one lost and one won by pruning, widen the images' part, so that networks that agree on every
    one of a few images are not taken for equal [Agresti & Min, Statistics in Medicine 24, 2005; Bonett & Price,
    Journal of Educational and Behavioral Statistics 37, 2012]. They are as large as the difference of an image is that
    is lost or won: 1 where trainings agree on it, and less where it is a mean over trainings of which few lose it, so
    that there are more images to be counted.

    With labels, an image of class c, one of n_c of C classes, weighs 1 / (C n_c). Images are drawn within their classes
    (strata [Cochran, Sampling Techniques, 1977, ch. 5]), and the made-up ones are shared out between the classes in
    proportion to 1 / n_c, most to where an image weighs most.

    Parameters
    ----------
    baseline, pruned : (S, n)
        1 where network s is right on test image i, 0 where it is wrong: the unpruned networks, and the pruned ones of
        the same seeds. NaN where the training does not test the image: two trainings test the same images, or none
        that both do.
    labels : (n,) or None
        The images' classes, for the drop of the mean over classes; None for that of accuracy.

    Raises
    ------
    ValueError
        If no image is tested, or trainings share some of their test images but not all.
    """
    differences = np.asarray(baseline, dtype=float) - np.asarray(pruned, dtype=float)
    tested = ~np.isnan(differences)
    trainings, images = tested.any(axis=1), tested.any(axis=0)
    if not images.any():
        raise ValueError("no training tests an image")
    differences, tested = differences[trainings][:, images], tested[trainings][:, images]
    times = tested.sum(axis=0)  # (n,): how many trainings test an image
    _, fold, sizes = np.unique(tested.argmax(axis=1), return_inverse=True, return_counts=True)
    together = sizes[fold]  # (S,): how many trainings test the images of this one
    if (np.where(tested, together[:, None], times) != times).any():
        raise ValueError("trainings share some of their test images, but not all")
    of_one = np.zeros(images.size) if labels is None else np.asarray(labels)
    _, classes, counts = np.unique(of_one[images], return_inverse=True, return_counts=True)
    seeds, types = len(together), len(counts)

    # Arrays below have one element a class, save those that say otherwise.
    share = 1 / types
    by_image = np.where(tested, differences, 0.0).sum(axis=0) / times  # (n,)
    means = np.bincount(classes, by_image) / counts
    squares = np.maximum(np.bincount(classes, by_image**2) - counts * means**2, 0.0)
    of_images = squares / np.maximum(counts - 1, 1)
    large = (np.sum(by_image**4) + WHOLE) / (np.sum(by_image**2) + WHOLE)
    made_up = 2 / counts / (1 / counts).sum()
    padded = counts + made_up
    # One lost and one won, less what their mean takes away.
    squares = squares + made_up * large + counts * means**2 - (counts * means) ** 2 / padded
    image_parts = share**2 * squares / (padded - 1) / padded
    image = image_parts.sum()
    image_freedom = image**2 / (image_parts**2 / np.maximum(counts - 1, 1)).sum()

    row, column = np.nonzero(tested)
    values = differences[row, column]
    weights = share / counts[classes[column]]  # one a test, like row, column and values
    by_training = np.bincount(row, weights)  # (S,)
    own = np.bincount(row, weights * values) / by_training  # (S,)
    drop = means.mean()
    if seeds == 1:
        return Parts(drop, image, image_freedom, share**2 * (of_images / counts).sum(), 0.0, 0, 0.0, 1.0)

    # What is left of a test's difference without its training's mean and its image's, of its class.
    kind = row * types + classes[column]
    in_class = np.maximum(np.bincount(kind, minlength=seeds * types), 1)  # (S C,)
    centred = values - by_image[column]
    left = centred - (np.bincount(kind, centred, minlength=seeds * types) / in_class)[kind]
    rest_freedom = ((in_class - 1).reshape(seeds, types) * (1 - 1 / together)[:, None]).sum(axis=0)
    of_rest = np.bincount(classes[column], left**2) / np.where(rest_freedom > 0, rest_freedom, np.inf)
    once = np.bincount(classes, 1 / times) / counts
    of_tests = of_images + (1 - once) * of_rest
    alone = np.bincount(row, weights**2 * of_tests[classes[column]]) / by_training**2  # (S,)
    real = share**2 * (of_images / counts).sum()
    return Parts(
        drop=drop,
        image=image,
        image_freedom=image_freedom,
        rest=share**2 * (once * of_rest / counts).sum() if (times > 1).any() else real,
        training=((own - drop) ** 2).sum() / (seeds - 1),
        freedom=seeds - 1,
        noise=max(seeds / (seeds - 1) * (alone.mean() - real), 0.0),
        share=1 / seeds,
    )


def pooled(networks: Sequence[Parts]) -> Prior | None:
    """What networks of one data set and backbone say together of a variance between trainings [Smyth, Statistical
    Applications in Genetics and Molecular Biology 3, 2004].

    s² of network g is taken as (noise_g + τ²) ς_g χ²_d / d, with ς_g from a scaled inverse χ² of d0 degrees of freedom.
    τ² is what makes the median of s² what it must be, which one network that scatters widely hardly moves; d0 comes
    from how much more the log s² differ than chance has it. They are told from chance less surely since all networks
    are held against the same trainings of the unpruned one (:data:`SHARED`), which too is why G networks are not worth
    G times as many degrees of freedom. An s² that is smaller than chance makes it in one of ten cases counts as that:
    it says that few images differ.

    Returns
    -------
    Prior or None
        None for fewer than two networks: a network by itself has its own variance.
    """
    known = [network for network in networks if network.freedom > 0]
    if len(known) < 2:
        return None
    found, noise, freedom = (
        np.array([getattr(each, name) for each in known]) for name in ("training", "noise", "freedom")
    )
    noise = noise + 1e-12
    least = 2 * scipy.special.gammaincinv(freedom / 2, _BY_CHANCE) / freedom
    typical = np.median(2 * scipy.special.gammaincinv(freedom / 2, 0.5) / freedom)
    between = _root(lambda value: np.median(found / (noise + value)) - typical, 0.0, found.max() / typical)
    expected = scipy.special.digamma(freedom / 2) - np.log(freedom / 2)
    logs = np.log(np.maximum(found / (noise + between), least)) - expected
    chance = (1 - SHARED) * scipy.special.polygamma(1, freedom / 2).mean()
    excess = logs.var(ddof=1) - chance
    worth, scale = np.inf, np.exp(logs.mean())
    if excess > 0:
        half = _root(lambda value: scipy.special.polygamma(1, np.exp(value)) - excess, -20.0, 20.0)
        worth = 2 * np.exp(half)
        scale *= np.exp(scipy.special.digamma(worth / 2)) / (worth / 2)
    most = freedom.sum() / (1 + SHARED * (len(known) - 1))
    return Prior(float(between), float(scale), float(worth), float(most))


def _root(falling: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function is 0; the nearer end where it is not in between."""
    if falling(low) <= 0:
        return low
    return high if falling(high) >= 0 else scipy.optimize.brentq(falling, low, high, xtol=1e-14, rtol=1e-13)


def moderated(found: Parts, prior: Prior | None) -> tuple[float, float]:
    """s² with what other networks say of it, and the degrees of freedom of both together."""
    if prior is None or not found.freedom:
        return found.training, float(found.freedom)
    worth = max(min(prior.freedom, prior.most - found.freedom), 0.0)
    centre = prior.scale * (found.noise + prior.between)
    freedom = worth + found.freedom
    return (worth * centre + found.freedom * found.training) / freedom, freedom


def _deviations(found: Parts, prior: Prior | None) -> np.ndarray:
    """What the standard deviation of the drop may be: its values at :data:`_PLACES` of their distribution.

    V = image + τ² / S, where τ² + noise may be s² d / χ²_d, with d degrees of freedom, and τ² is not below 0 [a
    generalized interval: Weerahandi, Journal of the American Statistical Association 88, 1993].
    """
    variance, freedom = moderated(found, prior)
    if not freedom:
        return np.sqrt(np.full(len(_PLACES), found.image))
    drawn = variance * freedom / _chi_squares(round(freedom, 6))
    return np.sqrt(found.image + found.share * np.maximum(drawn - found.noise, 0.0))


@functools.lru_cache(4096)
def _chi_squares(freedom: float) -> np.ndarray:
    return 2 * scipy.special.gammaincinv(freedom / 2, _PLACES)


def p_value(found: Parts, limit: float, prior: Prior | None = None) -> float:
    """One-sided, of a drop of ``limit`` (a share of 1) or more: at most α where :func:`interval` of 1 − 2α is below."""
    ratios = (limit - found.drop) / _deviations(found, prior)
    return float(_WEIGHTS @ scipy.special.stdtr(found.image_freedom, -ratios))


def interval(found: Parts, level: float = CONFIDENCE, prior: Prior | None = None) -> Interval:
    """The drop's interval at a level, over trainings and test images; of one training over images alone.

    Student's t, mixed over what the variance may be (:func:`_deviations`): t with S − 1 degrees of freedom where
    trainings scatter, with n − 1 where they do not.
    """
    deviations, tail = _deviations(found, prior), (1 - level) / 2
    quantile = scipy.special.stdtrit(found.image_freedom, 1 - tail)

    def too_often(half: float) -> float:
        return _WEIGHTS @ scipy.special.stdtr(found.image_freedom, -half / deviations) - tail

    half = _root(too_often, quantile * deviations.min(), quantile * deviations.max())
    return Interval(float(found.drop), float(found.drop - half), float(found.drop + half))


def paired_interval(
    baseline: np.ndarray,
    pruned: np.ndarray,
    labels: np.ndarray | None = None,
    level: float = CONFIDENCE,
    prior: Prior | None = None,
) -> Interval:
    """:func:`interval` of :func:`parts`, whose arguments it takes."""
    return interval(parts(baseline, pruned, labels), level, prior)


def lost_classes(baseline: np.ndarray, pruned: np.ndarray, labels: np.ndarray, margin: float) -> tuple[str, ...]:
    """The classes that a pruned network loses.

    A class is lost where the whole interval of its accuracy's drop, over its own test images, is above the margin. It
    is lost too where no seed's network is right on any of its n images, and that is not for want of images: the upper
    bound of such a class's accuracy, 1 − 0.025^(1 / n) [Clopper & Pearson, Biometrika 26, 1934], is below the unpruned
    network's less the margin, or below what guessing gives, 1 / C.

    Parameters
    ----------
    baseline, pruned : (S, n)
        As in :func:`parts`.
    labels : (n,)
        The images' classes.
    margin
        How much of its accuracy a class may lose, in points, of which 100 make 1.
    """
    baseline, pruned = np.asarray(baseline, dtype=float), np.asarray(pruned, dtype=float)
    tested = ~np.isnan(baseline - pruned)
    times = tested.sum(axis=0)
    names, classes = np.unique(labels, return_inverse=True)
    count = np.bincount(classes, times > 0)
    lost = []
    # Which images are right, and how often: of all tests, and by image as :func:`parts` has it.
    before, after = (np.where(tested, side, 0.0).sum(axis=0) for side in (baseline, pruned))
    lower = np.bincount(classes, (before - after) / np.maximum(times, 1)) / np.maximum(count, 1)
    for number in np.flatnonzero(count):
        there = classes == number
        bound = 1 - ((1 - CONFIDENCE) / 2) ** (1 / count[number])
        right = before[there].sum() / times[there].sum()
        never_found = not after[there].any() and bound < max(right - margin / 100, 1 / np.count_nonzero(count))
        if never_found or (
            100 * lower[number] > margin and 100 * paired_interval(baseline[:, there], pruned[:, there]).low > margin
        ):
            lost.append(str(names[number]))
    return tuple(lost)
