# Needs the place that these rules are read from. Makes the library importable.

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from snakemake.sourcecache import LocalGitFile, LocalSourceFile


def programs(rules):
    """The folder with the programs and the library, on this machine's disk.

    A module whose rules lie in a repository, `github("owner/winnow", tag="...")`, is read by Snakemake file by file from a
    bare clone. Programs and library are many files and belong together: they are unpacked beside it, once a commit.
    """
    if isinstance(rules, LocalSourceFile):
        return Path(rules).parent / "scripts"
    place = rules.repo_path if isinstance(rules, LocalGitFile) else rules.hosted_repo.repo_clone
    git = ["git", "-C", str(place)]
    commit = subprocess.run([*git, "rev-parse", f"{rules.ref}^{{commit}}"], check=True, capture_output=True, text=True)
    folder = Path(workflow.sourcecache.cache_path, "winnow", commit.stdout.strip())
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(dir=folder.parent))
        archive = subprocess.run([*git, "archive", folder.name, "scripts"], check=True, capture_output=True)
        subprocess.run(["tar", "-x", "-C", str(new)], check=True, input=archive.stdout)
        try:
            new.rename(folder)
        except OSError:
            # Another run was faster.
            shutil.rmtree(new)
    return folder / "scripts"


SCRIPTS = programs(workflow.current_basedir)
sys.path.insert(0, str(SCRIPTS))
