"""Runs a command in a pod, by the user's own kubectl.

The exec protocol has changed three times (SPDY, then WebSocket with two generations of channels, and the right that it
needs), and a kubeconfig may demand a proxy or a login that this package's client does not know. kubectl follows all of
that, and a user of `kubectl speil` has it. So this package needs no WebSocket of its own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from speil.survey.error import MissingRightError, SurveyError, missing_right
from speil.survey.look import ClusterSettings
from speil.survey.pods import Pod

OUTPUT_BYTES_MAX = 16 << 20  # of the command's stdout: the findings of doctor have some kilobytes
LINE_BYTES_MAX = 64 << 10  # of its stderr
EXEC_SECONDS_MAX = 3600.0  # a self-test pulls an image, which may be a large one
_SAID_CHARS_MAX = 400


@dataclass(frozen=True, slots=True)
class Kubectl:
    """The program, and the cluster that it is to use."""

    program: str
    cluster: ClusterSettings

    def argv(self, *arguments: str) -> list[str]:
        """A command line, with the kubeconfig and the context of the settings."""
        argv = [self.program]
        if self.cluster.kubeconfig_path:
            argv.append(f"--kubeconfig={self.cluster.kubeconfig_path}")
        if self.cluster.kubeconfig_context:
            argv.append(f"--context={self.cluster.kubeconfig_context}")
        return [*argv, *arguments]


async def document_of(
    kubectl: Kubectl, pod: Pod, container: str, command: Sequence[str], on_line: Callable[[str], None]
) -> dict[str, Any]:
    """The JSON object that `command` prints in the container, whatever its exit code. Raises SurveyError.

    `on_line` is called with each line of its stderr. A caller that is cancelled ends kubectl; the command in the pod
    goes on to its end.
    """
    exec_flags = [f"--namespace={pod.namespace}", f"--container={container}", pod.name]
    argv = kubectl.argv("exec", *exec_flags, "--", *command)
    code, out, last_line = await _run(argv, on_line)
    try:
        document = json.loads(out)
    except ValueError:
        document = None
    if isinstance(document, dict):
        return document
    if right := missing_right(last_line):
        raise MissingRightError(right)
    raise SurveyError(
        f"node {pod.node}: `{' '.join(command)}` in pod {pod.namespace}/{pod.name} printed no result (kubectl ended"
        f" with code {code}): {last_line[:_SAID_CHARS_MAX] or 'it said nothing'}"
    )


async def _run(argv: list[str], on_line: Callable[[str], None]) -> tuple[int, bytes, str]:
    """Exit code, stdout and the last line of stderr."""
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe, limit=LINE_BYTES_MAX
        )
    except OSError as error:
        raise SurveyError(
            f"{argv[0]} can't be run: {error.strerror}. It runs the command in the pod; install it, or name it with"
            " --kubectl"
        ) from error
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(EXEC_SECONDS_MAX), asyncio.TaskGroup() as group:
            reading = group.create_task(_read(process.stdout))
            last = group.create_task(_follow(process.stderr, on_line))
        await process.wait()
    except TimeoutError:
        raise SurveyError(f"the command in the pod did not end within {EXEC_SECONDS_MAX:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, reading.result(), last.result()


async def _read(stream: asyncio.StreamReader) -> bytes:
    """Everything, or OUTPUT_BYTES_MAX of it: the rest is read and dropped, so that the writer ends."""
    kept = bytearray()
    while chunk := await stream.read(LINE_BYTES_MAX):
        kept += chunk[: OUTPUT_BYTES_MAX - len(kept)]
    return bytes(kept)


async def _follow(stream: asyncio.StreamReader, on_line: Callable[[str], None]) -> str:
    last = ""
    while True:
        try:
            line = await stream.readline()
        except ValueError:  # a line beyond the limit, which is dropped
            continue
        if not line:
            return last
        if text := " ".join(line.decode("utf-8", "replace").split()):
            last = text
            on_line(text)
