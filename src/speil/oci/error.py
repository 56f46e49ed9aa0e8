"""Error codes and the JSON error body of the distribution spec ("Error Codes")."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any


class ErrorCode(StrEnum):
    """The codes that speil sends."""

    BLOB_UNKNOWN = "BLOB_UNKNOWN"
    MANIFEST_UNKNOWN = "MANIFEST_UNKNOWN"
    UNAUTHORIZED = "UNAUTHORIZED"


def envelope(code: ErrorCode, message: str, detail: dict[str, Any] | None = None) -> bytes:
    """The JSON body `{"errors": [{"code", "message", "detail"}]}`."""
    error: dict[str, Any] = {"code": code, "message": message}
    if detail:
        error["detail"] = detail
    return json.dumps({"errors": [error]}, separators=(",", ":")).encode()
