"""OCI types and parsers: digests, references, media types, manifests, platforms, /v2 paths, byte ranges, error codes.

A core package: text and bytes go in, typed values come out. Everything is parsed once, where it enters the process.
"""
