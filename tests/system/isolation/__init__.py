"""Isolation seen from outside: two regions, a router that records every packet between them, and what goes wrong.

First what the documentation says to configure, then every mistake and every attack that is known, each against the
same lab: no blob byte crosses, nobody foreign enters a table or a record, the log says what to do, and pulls go on.
"""
