"""The cluster of the tests: what it is made of and how to break it."""
