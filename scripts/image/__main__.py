"""Build the image, write the lock of its Debian packages, or leave the two trees in a folder for the Containerfile."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from scripts.image.archive import DESCRIPTION, TITLE, Archive
from scripts.image.identity import Identity, identify
from scripts.image.interpreter import MACHINES, Interpreter, native_architecture
from scripts.image.layers import make_layer
from scripts.image.lock import write_lock
from scripts.image.root import SITE, STANDARD_LIBRARY, Trees, build_wheel, make_application, make_base

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    """See the package."""
    parser = argparse.ArgumentParser(prog="python -m scripts.image", description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "dist" / "speil-image.tar", help="the archive")
    parser.add_argument("--reference", help="the image's name in the archive (speil:VERSION)")
    parser.add_argument("--architectures", default=",".join(sorted(MACHINES.values())), help="for which (amd64,arm64)")
    parser.add_argument(
        "--trees", type=Path, help="write no archive, but the trees of this machine's architecture here"
    )
    parser.add_argument("--lock", action="store_true", help="only write scripts/requirements/debian.txt anew")
    arguments = parser.parse_args()
    if arguments.lock:
        write_lock()
        return
    identity = identify()
    with tempfile.TemporaryDirectory(prefix="speil-image-") as folder:
        if arguments.trees:
            trees = make_trees(Path(folder), [native_architecture()], identity)
            for tree in (trees[0].base, trees[0].application):
                shutil.copytree(tree, arguments.trees / tree.name, symlinks=True)
            return
        architectures = arguments.architectures.split(",")
        made = make_trees(Path(folder), [native_architecture(), *architectures], identity)
        write_archive(made, architectures, identity, arguments.output, arguments.reference)


def make_trees(folder: Path, architectures: list[str], identity: Identity) -> list[Trees]:
    """Both trees of each architecture, compiled; the build machine's has to be the first."""
    wheel = build_wheel(folder, identity)
    made: list[Trees] = []
    for architecture in dict.fromkeys(architectures):
        base = make_base(folder / architecture, architecture)
        made.append(Trees(architecture, base, make_application(folder / architecture, architecture, wheel, identity)))
    python = Interpreter(made[0].base, made[0].architecture)
    for trees in made:
        python.compile(trees.base, [STANDARD_LIBRARY, SITE])
        python.compile(trees.application, [SITE])
    return made


def write_archive(
    made: list[Trees], architectures: list[str], identity: Identity, output: Path, reference: str | None
) -> None:
    """Pack those architectures into one archive, and print what it has."""
    python = Interpreter(made[0].base, made[0].architecture)
    archive = Archive(identity, image_annotations(identity))
    for trees in made:
        if trees.architecture not in architectures:
            continue
        layers = [make_layer(tree, python.compress) for tree in (trees.base, trees.application)]
        archive.add(trees.architecture, layers)
        compressed = [len(layer.data) / 1e6 for layer in layers]
        print(
            f"{trees.architecture}: {sum(compressed):.1f} MB compressed (base {compressed[0]:.1f}, application "
            f"{compressed[1]:.1f}), {sum(layer.size_unpacked for layer in layers) / 1e6:.1f} MB unpacked"
        )
    reference = reference or f"speil:{identity.version}"
    digest = archive.write(output, reference)
    print(f"{output}: {reference} {digest}")


def image_annotations(identity: Identity) -> dict[str, str]:
    """Those of the OCI image spec, for manifests, index and labels."""
    prefix = "org.opencontainers.image."
    return {
        f"{prefix}title": TITLE,
        f"{prefix}description": DESCRIPTION,
        f"{prefix}version": identity.version,
        f"{prefix}revision": identity.commit,
        f"{prefix}created": identity.created,
        f"{prefix}licenses": "MIT",
        f"{prefix}vendor": "the speil authors",
    }


if __name__ == "__main__":
    main()
