"""Why a request got no answer, by who erred. The messages name the server, and no password of its URL."""

from __future__ import annotations


class HttpError(Exception):
    """The request got no answer that can be used."""


class RequestError(HttpError):
    """The caller erred: the URL or a header field can't be sent."""


class UnreachableError(HttpError):
    """No connection: the name, the network or TLS."""


class NoAnswerError(HttpError):
    """No whole answer within the time limit."""


class BadAnswerError(HttpError):
    """The server erred: it closed the connection too early, or what it sent is no HTTP/1.1."""


class AnswerTooLargeError(BadAnswerError):
    """The answer's body is longer than the caller's bound."""
