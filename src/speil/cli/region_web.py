"""`speil region web`: serves the page of all regions on loopback, until interrupted."""

from __future__ import annotations

import errno
import os
import socket
import sys
import threading
import webbrowser
from contextlib import AsyncExitStack
from dataclasses import dataclass

from speil.cli.app import CommandError
from speil.cli.surveying import run_survey
from speil.config import ConfigError
from speil.region_web.collector import Collector
from speil.region_web.server import RegionWeb
from speil.region_web.session import Session, redirect_file
from speil.setting import boolean, duration, integer, setting
from speil.survey.look import SurveySettings, looking

INTERVAL_SECONDS_MIN = 1.0


@dataclass(frozen=True, slots=True)
class Settings:
    """See the help of each setting."""

    survey: SurveySettings
    port: int = setting(integer, 0, help="The port on 127.0.0.1. 0: a free one.")
    no_browser: bool = setting(boolean, False, help="Print the address and open no browser.")
    interval: float = setting(duration, 3.0, help="How often to read the regions while the page is open.")


def run(settings: Settings) -> int:
    """Serve until interrupted. Raises CommandError, ConfigError."""
    if not 0 <= settings.port <= 65535:
        raise ConfigError("--port must be between 0 and 65535")
    run_survey(_run(settings))
    return 0


async def _run(settings: Settings) -> None:
    port = settings.port or _free_port()
    session = Session(port)
    async with looking(settings.survey) as look, AsyncExitStack() as stack:
        collector = Collector(look, max(settings.interval, INTERVAL_SECONDS_MIN))
        # the first look shows whether the cluster can be read at all
        collector.show(await look(), 0.0)
        try:
            await stack.enter_async_context(RegionWeb(collector, session).serve(port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                why = "is in use by another process; stop it or choose another port"
            else:
                why = f"can't be used: {error.strerror}"
            raise CommandError(f"--port: 127.0.0.1:{port} {why}") from error
        print(f"all regions: {session.url_with_token}", flush=True)
        if not settings.no_browser and _has_display():
            uri = stack.enter_context(redirect_file(session.url_with_token))
            # some browsers end their command when they are closed: nothing here waits for that
            threading.Thread(target=webbrowser.open, args=(uri,), daemon=True).start()
        await collector.run()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _has_display() -> bool:
    """Whether a browser has a screen here; without one `webbrowser` would start a browser for terminals."""
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
