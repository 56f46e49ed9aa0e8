"""Build the image, write the lock of its Debian packages, or leave the two trees in a folder for the Containerfile."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from scripts.image.archive import Archive
from scripts.image.commands import FailedError, end_at_once
from scripts.image.identity import Identity, identify
from scripts.image.interpreter import MACHINES, Interpreter, native_architecture
from scripts.image.layers import copy_tree, make_layer
from scripts.image.lock import write_lock
from scripts.image.root import (
    SITE,
    STANDARD_LIBRARY,
    Trees,
    build_wheel,
    make_application,
    make_base,
    make_interpreter,
)
from scripts.image.scratch import scratch_folder

from speil.cli.signals import leave
from speil.progress import Progress

ROOT = Path(__file__).resolve().parents[2]
INTERRUPTED = 130  # as shells report a program that SIGINT ended
# what the chart's default, `speil`, means to containerd
REPOSITORY = "docker.io/library/speil"


@dataclass(frozen=True, slots=True)
class Build:
    """The trees of some architectures, the build machine's first, and the Python that made their bytecode."""

    identity: Identity
    python: Interpreter
    trees: list[Trees]


def main() -> int:
    """See the package. Returns the exit code; after an interrupt, which leaves nothing of the build, it ends here."""
    end_at_once()
    try:
        _main()
    except KeyboardInterrupt:
        print("\ninterrupted; nothing was written", file=sys.stderr)
        leave(INTERRUPTED)  # without freeing hundreds of megabytes first
    except FailedError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.image", description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "dist" / "speil-image.tar", help="the archive")
    parser.add_argument("--reference", help=f"the image's name in the archive ({REPOSITORY}:VERSION)")
    parser.add_argument("--architectures", default=",".join(sorted(MACHINES.values())), help="for which (amd64,arm64)")
    parser.add_argument("--no-cache", action="store_true", help="compress anew what was compressed before")
    parser.add_argument(
        "--trees", type=Path, help="write no archive, but the trees of this machine's architecture here"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress on stderr")
    parser.add_argument("--lock", action="store_true", help="only write scripts/image/debian.lock anew")
    arguments = parser.parse_args()
    if arguments.lock:
        write_lock()
        return
    architectures = [] if arguments.trees else arguments.architectures.split(",")
    if unknown := set(architectures) - set(MACHINES.values()):
        parser.error(f"no image is made for {', '.join(sorted(unknown))}")
    with scratch_folder() as folder, Progress(quiet=arguments.quiet) as progress:
        os.environ["TMPDIR"] = str(folder)  # of the programs that are run: nothing of them stays either
        build = make(folder, architectures, progress, cache=not arguments.no_cache)
        if arguments.trees:
            progress.stage("copying the trees")
            for tree in (build.trees[0].base, build.trees[0].application):
                copy_tree(tree, arguments.trees / tree.name)
        else:
            reference = arguments.reference or f"{REPOSITORY}:{build.identity.version}"
            write_archive(build, architectures, arguments.output, reference, progress)


def make(folder: Path, architectures: list[str], progress: Progress, *, cache: bool) -> Build:
    """Both trees of those architectures and of the build machine's, compiled."""
    identity = identify()
    progress.stage("building the wheel")
    wheel = build_wheel(folder, identity)
    made: list[Trees] = []
    for architecture in dict.fromkeys([native_architecture(), *architectures]):
        base = make_base(folder / architecture, architecture, progress)
        made.append(Trees(architecture, base, make_application(folder / architecture, architecture, wheel, identity)))
    python = make_interpreter(folder, made[0], cache=cache)
    progress.stage("compiling modules", len(made))
    for trees in made:
        python.compile(trees.base, [STANDARD_LIBRARY, SITE])
        python.compile(trees.application, [SITE])
        progress.advance()
    return Build(identity, python, made)


def write_archive(build: Build, architectures: list[str], output: Path, reference: str, progress: Progress) -> None:
    """Pack those architectures into one archive, and print what it has."""
    archive = Archive(build.identity)
    for trees in build.trees:
        if trees.architecture not in architectures:
            continue
        progress.stage(f"{trees.architecture}: compressing layers", 2)
        layers = []
        for tree in (trees.base, trees.application):
            layers.append(make_layer(tree, build.python.compress))
            progress.advance()
        archive.add(trees.architecture, layers)
        compressed = [len(layer.data) / 1e6 for layer in layers]
        progress.clear()
        print(
            f"{trees.architecture}: {sum(compressed):.1f} MB compressed (base {compressed[0]:.1f}, application "
            f"{compressed[1]:.1f}), {sum(layer.size_unpacked for layer in layers) / 1e6:.1f} MB unpacked"
        )
    progress.stage("writing the archive")
    written = archive.write(output, reference)
    progress.clear()
    print(f"{output}: {reference} {written}")


if __name__ == "__main__":
    sys.exit(main())
