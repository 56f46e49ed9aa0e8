"""Moved to `speil.http1`; the old server goes when the mirror stands on the new one."""

from speil.http1.own_addresses import OwnAddresses

__all__ = ["OwnAddresses"]
