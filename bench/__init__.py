"""The figures, each measured beside its baseline in the same run: `make bench`, or `python -m bench --only local`."""
