"""Faults while several nodes pull the same new image at once: the second part of docs/faults.md.

`upstream` is the registry, with a pace and faults for single clients. `lab` holds four nodes and puts them right again,
`trial` is one simultaneous pull with its fault, `cases` says what goes wrong, `claimer` is a member that lies.
"""
