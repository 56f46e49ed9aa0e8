"""Content stores: the images that this node has.

`base` is the port. The adapters are `memory`, `oci_layout` and `containerd`. `build` creates one from the settings.
`ingests` is the port to content that is being downloaded; the adapters are `ingest_directory` and `memory_ingests`.
"""
