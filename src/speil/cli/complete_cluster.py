"""Candidates that a kubeconfig or a cluster has: contexts, nodes, regions, namespaces of speil."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from speil.cli.running import run_async
from speil.config import ConfigError, HelpRequested, all_settings, build, split_arguments
from speil.kube.error import KubeError
from speil.kube.kubeconfig import context_names
from speil.setting import SettingError
from speil.survey.error import SurveyError
from speil.survey.look import ClusterSettings
from speil.survey.pods import Pod, pods_in_cluster

SECONDS_MAX = 2.0  # somebody waits at the prompt


def contexts(words: Sequence[str]) -> list[str]:
    """The contexts of the kubeconfig that the line names."""
    try:
        return context_names(_cluster(words).paths())
    except KubeError:
        return []


def nodes(words: Sequence[str]) -> list[str]:
    """The nodes with a pod of speil."""
    return sorted({pod.node for pod in _pods(words) if pod.node})


def regions(words: Sequence[str]) -> list[str]:
    """The regions of the pods."""
    return sorted({pod.region for pod in _pods(words) if pod.region})


def namespaces(words: Sequence[str]) -> list[str]:
    """The namespaces of the pods."""
    return sorted({pod.namespace for pod in _pods(words)})


def _cluster(words: Sequence[str]) -> ClusterSettings:
    """As far as the line says which cluster it is."""
    known, kept, items = all_settings(ClusterSettings), [], list(words)
    flags = {flag for one in known for flag in one.flags}
    while items:
        item = items.pop(0)
        if item.partition("=")[0] not in flags:
            continue
        if "=" in item:
            kept.append(item)
        elif items:  # the last one is being completed
            kept += [item, items[0]]
    try:
        return build(ClusterSettings, split_arguments("", kept, known), os.environ, by_hand=True)
    except (ConfigError, HelpRequested, SettingError):
        return ClusterSettings("", "")


def _pods(words: Sequence[str]) -> list[Pod]:
    async def read() -> list[Pod]:
        async with asyncio.timeout(SECONDS_MAX), _cluster(words).api() as api:
            return await pods_in_cluster(api)

    try:
        return run_async(read())
    except (SurveyError, KubeError, TimeoutError):
        return []
