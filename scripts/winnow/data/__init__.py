"""From a folder, or an archive of a known source, to a store: the images decoded once, with their labels; to splits of
it, and to what a network sees of it.

In come files as people and their sources have them, and what config.yaml says of a data set. Out go ``images.npy``,
``index.parquet`` and ``manifest.json`` (:mod:`winnow.data.store`), tables of what trains, chooses and judges
(:mod:`winnow.data.splits`), and batches on a device (:mod:`winnow.data.images`, :mod:`winnow.data.augmentation`).
"""
