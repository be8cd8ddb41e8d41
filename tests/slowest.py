"""Name the tests that took longest when they last ran: ``python tests/slowest.py [20]``. See tests/conftest.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path

KEY = "winnow/seconds"


def main() -> None:
    file = Path(__file__).parents[1] / ".pytest_cache/v" / KEY
    seconds = json.loads(file.read_text()) if file.exists() else {}
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    for name, value in sorted(seconds.items(), key=lambda item: -item[1])[:count]:
        print(f"{value:7.1f} s  {name}")


if __name__ == "__main__":
    main()
