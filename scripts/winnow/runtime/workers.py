"""Warm workers: placeholder until they stand."""


def delegate(file: str) -> None:
    return None
