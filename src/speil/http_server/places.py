"""Moved to `speil.http1`; the old server goes when the mirror stands on the new one."""

from speil.http1.places import Bounds, Place, Places, Refusal

__all__ = ["Bounds", "Place", "Places", "Refusal"]
