"""`python -m bench [--only CASE ...] [--write]`: measure, print one table; `--write` keeps it in docs/benchmarks.md."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from bench.cases import CASES
from bench.table import HEADER, Figure, page

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
ALONE = {"hostile"}  # minutes of attacks, which would be in the way of the other figures: `make hostile`


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    usual = [name for name in CASES if name not in ALONE]
    parser.add_argument("--only", nargs="+", choices=CASES, default=usual, help="the cases to run")
    parser.add_argument("--write", action="store_true", help=f"write the table to {PAGE.name}")
    arguments = parser.parse_args()
    figures: dict[str, list[Figure]] = {}
    print(HEADER.line())
    for case in arguments.only:
        os.sync()  # what the case before left to be written is not to be written during this one
        with tempfile.TemporaryDirectory(prefix="speil-bench-") as directory:
            figures[case] = CASES[case].measure(Path(directory))
        for figure in figures[case]:
            print(figure.line(), flush=True)
    if arguments.write:
        PAGE.write_text(page(figures, CASES))


if __name__ == "__main__":
    main()
