"""The OCI vocabulary: digests, references, media types, manifests, the /v2 paths, byte ranges, error codes.

A core: text and bytes in, values out. Parse once at the edge; behind it there is no `str` digest.
"""
