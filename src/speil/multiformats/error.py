"""The one error of this package."""


class FormatError(ValueError):
    """Text or bytes that do not follow their format: an error of the sender, or in a setting."""
