"""System tests: real containerds, a real registry, several nodes in network namespaces."""
