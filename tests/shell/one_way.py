"""The way of a request through the data plane, as a table: docs/architecture.md shows it, test_one_way.py walks it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hop:
    """`modules` take turns: which of them a request enters depends on where the content is."""

    modules: tuple[str, ...]
    what: str


HOPS = (
    Hop(("http1.head",), "the request's head is read, checked and parsed"),
    Hop(("mirror.server",), "the record of the request begins; the region's border lets it in (`border.http`)"),
    Hop(
        ("mirror.registry",),
        "basic auth; what is asked for (`mirror.asked`); is another open request allowed (`mirror.open_requests`)",
    ),
    Hop(("mirror.resolve",), "the sources are asked in order, by what is asked for and by whom"),
    Hop(
        (
            "sources.own_store",
            "sources.peers",
            "sources.tags",
            "inflight.others",
            "inflight.following",
            "inflight.serving",
        ),
        "a source opens the content: the store's file, the first good response of a peer (`sources.peer_race`, decided "
        "by `fetch.transfer`), or a download of another node (`inflight`, decided by `claims`)",
    ),
    Hop(("mirror.plan",), "status and headers of the answer"),
    Hop(("mirror.send",), "the head is sent (`http1.reply`), and the client's socket becomes a sink (`wire.sink`)"),
    Hop(
        ("sources.stored_blob", "sources.relayed", "sources.verified_body", "sources.growing", "inflight.delivered"),
        "the body moves into the sink: by sendfile (`wire.file_body`, `wire.growing_file`) or splice "
        "(`wire.socket_body`); where a peer breaks off, another one goes on at the same offset",
    ),
)


def table() -> str:
    """The table in Markdown."""
    rows = [
        f"| {number} | {', '.join(f'`{module}`' for module in hop.modules)} | {hop.what} |"
        for number, hop in enumerate(HOPS, 1)
    ]
    return "\n".join(["| hop | where | what happens |", "|---|---|---|", *rows])
