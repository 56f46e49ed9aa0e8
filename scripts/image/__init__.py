"""The container image, made without a container runtime: `python -m scripts.image --help`.

A root file system for each architecture is unpacked out of locked Debian packages and locked wheels. Nothing of it is
executed but the Python interpreter of the build machine's own architecture, which compiles and compresses: so the
result depends on the two locks and the sources, and not on the Python or zlib of the build machine.

    debian      Debian packages: read the lock, fetch, unpack
    lock        write that lock anew
    prune       what is left out of the packages, and why
    strip       symbols out of the wheels' compiled modules
    root        the root file system, as two trees: base and application
    interpreter the image's own Python, run on the build machine
    bill        SBOM, licences and dpkg's status
    identity    version, commit and time of the sources
    layers      a tree as a layer; the same tree gives the same bytes
    archive     manifests, index and the OCI archive
"""
