"""Errors of a look at a cluster, as lines that say what to do."""

from __future__ import annotations

import re

from speil.kube.error import KubeError, KubeForbiddenError, KubeUnauthorizedError, KubeUnreachableError

# `User "jane" cannot list resource "pods" in API group "" in the namespace "speil"` (apiserver, responsewriters)
_CANNOT = re.compile(
    r'(?:User "(?P<user>[^"]*)" )?cannot (?P<verb>\w+) resource "(?P<resource>[^"]+)" in API group "(?P<group>[^"]*)"'
    r'(?: in the namespace "(?P<namespace>[^"]+)")?'
)


class SurveyError(Exception):
    """Nothing can be read. The message has the reason and the setting that helps."""


class MissingRightError(SurveyError):
    """The user may not do this, on any node: there is no use in asking for the next one."""


def survey_error(error: KubeError) -> SurveyError:
    """The error with what to do about it. A right that is missing is named by verb and resource."""
    if isinstance(error, KubeForbiddenError) and (right := missing_right(str(error))):
        return MissingRightError(right)
    if isinstance(error, KubeUnauthorizedError):
        return SurveyError(f"{error}: the cluster does not accept the credentials of this context; log in again")
    if isinstance(error, KubeUnreachableError):
        return SurveyError(f"{error}: is the cluster up, and is --context the right one?")
    return SurveyError(str(error))


def missing_right(message: str) -> str:
    """The right that an API server's refusal names, and who needs it; "" where it names none."""
    if not (found := _CANNOT.search(message)):
        return ""
    resource = f"{found['resource']}.{found['group']}" if found["group"] else found["resource"]
    namespace = found["namespace"]
    where, kind = (f"in namespace {namespace}", "Role") if namespace else ("in all namespaces", "ClusterRole")
    user = f"user {found['user']}" if found["user"] else "this user"
    narrower = ", or set --namespace" if resource == "pods" and not namespace else ""
    return (
        f"not allowed to {found['verb']} {resource} {where}: {user} needs a {kind} with the verb {found['verb']!r} on"
        f" {resource!r}{narrower}; docs/commands.md lists all rights"
    )
