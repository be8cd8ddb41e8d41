"""Winnow: which convolution filters does a small data set need, and what does removing the others cost?

The library that the stage programs in ``scripts/`` share. Nothing in it knows Snakemake. What concerns only *how* a
job runs (devices, warm workers, progress) lives in :mod:`winnow.runtime` and is no part of a job's identity.
"""

__version__ = "0.1.0"
