"""Deployed by snakedeploy, the workflow is a module that is read from a repository: its programs run from there."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

from .checkout import ROOT, Checkout

URL = "https://github.com/owner/winnow"
FILE = "results/datasets/digits/manifest.json"


def git(*arguments: object) -> None:
    identity = ("-c", "user.name=Winnow", "-c", "user.email=winnow@example.org")
    subprocess.run(["git", *identity, *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    """A repository with the sources as they are, which stands where its address leads to."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("this is no git checkout")
    place = tmp_path / "served/owner/winnow"
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file() and not name.startswith(("tests/", "docs/", "benchmarks/")):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            # A link is one there, too.
            (place / name).symlink_to(os.readlink(ROOT / name)) if (ROOT / name).is_symlink() else (
                place / name
            ).write_bytes((ROOT / name).read_bytes())
    git("init", "--quiet", place)
    git("-C", place, "add", "--all")
    git("-C", place, "commit", "--quiet", "--message", "As it is")
    git("-C", place, "tag", "v1")
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{tmp_path}/served/.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://github.com/",
        "GITHUB_TOKEN": "",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }


@pytest.mark.slow("starts Snakemake three times, anew from a repository")
@pytest.mark.skipif(
    not importlib.util.find_spec("snakedeploy"), reason="snakedeploy, of the extra dev, is not installed"
)
def test_what_snakedeploy_writes_runs(environment, tmp_path):
    place = tmp_path / "place"
    command = "from snakedeploy.client import main; main()"
    arguments = ["deploy-workflow", URL, str(place), "--tag", "v1"]
    subprocess.run([sys.executable, "-c", command, *arguments], check=True, env=os.environ | environment)
    assert sorted(file.name for file in place.iterdir()) == ["config", "profiles", "workflow"]
    assert (place / "config/config.yaml").read_bytes() == (ROOT / "config.yaml").read_bytes()
    assert not (place / "config/config.yaml").is_symlink()

    deployed = Checkout(place)
    assert "finetune" in deployed.snakemake("-n", "demo", **environment)
    # A program ran, and what it made is current.
    deployed.snakemake(FILE, **environment)
    assert (place / FILE).exists()
    assert "Nothing to be done" in deployed.snakemake("-n", FILE, **environment)
    (programs,) = (tmp_path / "cache").glob("**/winnow/*/scripts")
    assert (programs / "decode.py").read_bytes() == (ROOT / "scripts/decode.py").read_bytes()
