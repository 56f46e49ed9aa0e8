"""The public test kit: deadlines instead of sleeps, an in-memory network, conformance suites, made-up images."""
