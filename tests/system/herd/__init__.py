"""The herd lab: many nodes pull the same image at once, over links of a known rate (`python -m tests.system.herd`)."""
