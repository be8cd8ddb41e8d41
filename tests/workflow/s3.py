"""An S3 on loopback."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

KEYS = {"access-key": "key", "secret-key": "secret"}


@contextlib.contextmanager
def serving(bucket: str) -> Iterator[tuple[Any, dict[str, str]]]:
    """An empty bucket, and what Snakemake's provider is told to find it, by its options' names."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        address = "http://{}:{}".format(*server.get_host_and_port())
        keys = {"aws_access_key_id": KEYS["access-key"], "aws_secret_access_key": KEYS["secret-key"]}
        made = boto3.resource("s3", endpoint_url=address, region_name="us-east-1", **keys).create_bucket(Bucket=bucket)
        yield made, {"endpoint-url": address} | KEYS
    finally:
        server.stop()
