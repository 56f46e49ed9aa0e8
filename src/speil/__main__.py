"""`python -m speil` is the same as `speil`."""

from speil.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
