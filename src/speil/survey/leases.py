"""Reads the Leases of all regions, from the cluster or from lease files."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speil.election.record import REGION_ANNOTATION, decode
from speil.kube.api import KubeApi
from speil.kube.error import KubeError, KubeForbiddenError
from speil.lease.base import LeaseError, LeaseLock
from speil.lease.file import FileLease
from speil.lease.kubernetes import KubernetesLease
from speil.overview.view import LeaseView
from speil.region.naming import lease_of
from speil.survey.error import SurveyError, survey_error

NO_LEASE = "there is none"
_LEASES = "/apis/coordination.k8s.io/v1/leases"


async def leases_in_cluster(api: KubeApi, regions: Sequence[str]) -> list[LeaseView]:
    """Every Lease with a region's annotation. Where listing is not allowed, those of `regions` by name.

    A Lease that can't be read is in the list with its error. Raises SurveyError.
    """
    try:
        answer = await api.request("GET", _LEASES)
    except KubeForbiddenError as error:
        if not regions:
            raise SurveyError(
                f"{survey_error(error)}. Or set --regions: then each Lease is read by its name"
            ) from error
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_named(api, region)) for region in regions]
        return [task.result() for task in tasks]
    except KubeError as error:
        raise survey_error(error) from error
    items: list[dict[str, Any]] = [item for item in answer.document.get("items") or () if isinstance(item, dict)]
    found = []
    for item in items:
        metadata = item.get("metadata") or {}
        if REGION_ANNOTATION in (metadata.get("annotations") or {}):
            name = f"{metadata.get('namespace')}/{metadata.get('name')}"
            found.append(LeaseView(name, decode(item, answer.served_at)))
    return found


async def _named(api: KubeApi, region: str) -> LeaseView:
    name = lease_of(region)
    return await _read(KubernetesLease(api, name.name, name.namespace), region)


async def leases_in_files(paths: Sequence[Path]) -> list[LeaseView]:
    """The Leases in these files. A file that can't be read is in the list with its error."""
    return [await _read(FileLease(path)) for path in paths]


async def _read(lock: LeaseLock, region: str = "") -> LeaseView:
    try:
        lease = await lock.get()
    except LeaseError as error:
        return LeaseView(str(lock), error=str(error), asked_for=region)
    return LeaseView(str(lock), lease, "" if lease else NO_LEASE, region)
