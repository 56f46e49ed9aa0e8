"""The test kit of this repository: deadlines, virtual time, cancellation, an in-memory network, conformance suites, images."""
