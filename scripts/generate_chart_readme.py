"""Write the table of values into charts/speil/README.md and the defaults into its files (`make docs`); a test compares.

The table comes from the comments of values.yaml: `# --` opens what is said of the next key, and lines of comment behind
it go on. files/defaults.json is values.yaml for the templates: helm keeps that file from them (`speil.defaults`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parent.parent / "charts" / "speil"
README, VALUES, DEFAULTS = CHART / "README.md", CHART / "values.yaml", CHART / "files" / "defaults.json"
BEGIN, END = "<!-- values: written by `make docs` -->\n", "<!-- end of values -->\n"
_KEY = re.compile(r"( *)([A-Za-z]+):")


@dataclass(frozen=True, slots=True)
class Value:
    """A value of the chart: where it is, such as `service.registry.port`, its default and what is said of it."""

    path: str
    default: Any
    about: str


def described() -> Iterator[Value]:
    """The values that have a description."""
    defaults = yaml.safe_load(VALUES.read_text())
    path: list[str] = []
    about: list[str] = []
    for line in VALUES.read_text().splitlines():
        text = line.strip()
        if text.startswith("# -- "):
            about = [text.removeprefix("# -- ")]
        elif text.startswith("# ") and about:
            about.append(text.removeprefix("# "))
        elif match := _KEY.match(line):
            path = [*path[: len(match[1]) // 2], match[2]]
            if about:
                default = defaults
                for key in path:
                    default = default[key]
                yield Value(".".join(path), default, " ".join(about))
            about = []


def table() -> str:
    """The values as a Markdown table."""
    rows = ["| value | default | |", "|---|---|---|"]
    rows += [f"| `{one.path}` | `{json.dumps(one.default)}` | {one.about.replace('|', '/')} |" for one in described()]
    return "\n".join(rows) + "\n"


def readme() -> str:
    """The README as it should be."""
    before, _, rest = README.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table()}{END}{after}"


def defaults() -> str:
    """values.yaml as the templates can read it, one line a top-level key."""
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in yaml.safe_load(VALUES.read_text()).items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    README.write_text(readme())
    DEFAULTS.write_text(defaults())
