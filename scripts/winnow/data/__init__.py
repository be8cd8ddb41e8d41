"""From a folder, or an archive of a known source, to a store: the images decoded once, their labels and splits; and
from a store to what a network sees of it.

In come files as people and their sources have them, and what config.yaml says of a data set. Out go ``images.npy``,
``index.parquet`` and ``manifest.json`` (:mod:`winnow.data.store`), and batches on a device
(:mod:`winnow.data.images`, :mod:`winnow.data.augmentation`).
"""
