"""The one error of this package."""


class FormatError(ValueError):
    """Text or bytes that are not what their format says: the sender (or whoever wrote the setting) erred."""
