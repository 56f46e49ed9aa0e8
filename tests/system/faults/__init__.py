"""The fault table: real pulls by real containerds while something goes wrong, and what each fault costs.

`lab` holds the nodes and puts them right again, `trial` is one pull with its fault, `cases` says what goes wrong,
`table` writes docs/faults.md. `make faults` runs all of it, tests/system/faults/test_faults.py what CI has time for.
"""
