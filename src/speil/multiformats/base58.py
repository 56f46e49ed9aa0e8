"""Base58 with Bitcoin's alphabet ("base58btc"), the text form of peer ids."""

from __future__ import annotations

from speil.multiformats.error import FormatError

ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_VALUES = {char: value for value, char in enumerate(ALPHABET)}
TEXT_CHARS_MAX = 128  # a peer id has 46 to 52; the conversion takes quadratic time, so text from peers is limited


def encode(data: bytes) -> str:
    """Base58 text of `data`; each leading zero byte becomes a `1`."""
    number, out = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        out = ALPHABET[digit] + out
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + out


def decode(text: str) -> bytes:
    """The bytes behind `text`. Raises FormatError."""
    if len(text) > TEXT_CHARS_MAX:
        raise FormatError(f"base58 text is longer than {TEXT_CHARS_MAX} characters")
    number = 0
    for char in text:
        if char not in _VALUES:
            raise FormatError(f"not a base58 character: {char!r}")
        number = number * 58 + _VALUES[char]
    zeros = len(text) - len(text.lstrip("1"))
    return b"\0" * zeros + number.to_bytes((number.bit_length() + 7) // 8, "big")
