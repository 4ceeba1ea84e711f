"""Print the lower bounds of pyproject.toml as pip constraints: the oldest versions that the package claims to run with.

``make test-lower`` installs them. A tool of the developers (ruff, mypy, ...) is left out: its version does not matter
to a user.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

EXTRAS = ("events", "export", "report")
TESTING = ("pytest>", "hypothesis>")

BOUND = re.compile(r"^(?P<name>[\w.-]+)(\[[\w,]+\])?\s*>=\s*(?P<version>[\w.]+)$")


def constraints(project: dict) -> list[str]:  # type: ignore[type-arg]
    """``NAME==VERSION`` for every dependency of the core, of the extras and of the tests."""
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(entry for extra in EXTRAS for entry in extras[extra])]
    wanted += [entry for entry in extras["dev"] if entry.startswith(TESTING)]
    lines = []
    for entry in wanted:
        match = BOUND.match(entry)
        if match is None:
            raise SystemExit(f"pyproject.toml: '{entry}' has no plain lower bound (NAME>=VERSION)")
        lines.append(f"{match['name']}=={match['version']}")
    return lines


if __name__ == "__main__":
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    print("\n".join(constraints(tomllib.loads(text)["project"])))
