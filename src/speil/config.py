"""Reads settings from the command line and the environment: the flag, else the environment variable, else the default.

A command joins settings dataclasses of the packages. Flags and variables of older versions of Spegel are accepted with
a warning: those that were renamed count under their new name, those that have no effect any more are ignored. A mistake
raises ConfigError, one line that names the flag or variable.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from speil.election.settings import ElectionSettings
from speil.fetch.settings import FetchSettings
from speil.inflight.settings import SharingSettings
from speil.mirror.settings import MirrorSettings
from speil.observe.settings import LogSettings
from speil.region.settings import RegionSettings
from speil.routing.settings import RouterSettings
from speil.setting import BOOLEAN_WORDS, Setting, SettingError, declared
from speil.store.settings import StoreSettings

T = TypeVar("T")
_FLAG = re.compile(r"--([a-z0-9][a-z0-9-]*)(?:=(.*))?", re.DOTALL)
_SHORT_FLAG = re.compile(r"-([a-zA-Z])(?:=?(.+))?", re.DOTALL)


class ConfigError(Exception):
    """The operator's configuration is wrong. The message is the line to print; the command exits with code 2."""


class HelpRequested(Exception):
    """`--help` was given."""


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """All settings of `speil registry`."""

    log: LogSettings
    region: RegionSettings
    election: ElectionSettings
    store: StoreSettings
    router: RouterSettings
    mirror: MirrorSettings
    fetch: FetchSettings
    share: SharingSettings


@dataclass(frozen=True, slots=True)
class OldName:
    """A flag of an older Spegel. `now` is the setting that replaced it; None: it has no effect, see `note`."""

    name: str
    now: str | None
    note: str = ""


OLD_NAMES: Mapping[str, tuple[OldName, ...]] = {
    "registry": (
        OldName("registries", "mirrored_registries"),
        OldName("local_addr", None, "the header X-Spegel-Mirrored marks requests of peers"),
        OldName("blob_speed", "upload_limit"),
        OldName("resolve_latest_tag", None, "use --registry-filters ':latest$' to leave the tag latest alone"),
        OldName("containerd_registry_config_path", None, "`speil configuration` and `speil doctor` look at it"),
    ),
    "configuration": (
        OldName("registries", "mirrored_registries"),
        OldName("mirror_registries", "mirror_targets"),
        OldName("append_mirrors", "prepend_existing"),
    ),
}


@dataclass(slots=True)
class Arguments:
    """The values of the command line by setting, not parsed yet. `warnings` are for the log."""

    values: dict[str, list[str]] = field(default_factory=dict)
    positional: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def split_arguments(command: str, argv: Sequence[str], settings: Sequence[Setting]) -> Arguments:
    """Assign the arguments of `command` to its settings. Raises ConfigError, HelpRequested."""
    known, old = {one.name: one for one in settings}, {one.name: one for one in OLD_NAMES.get(command, ())}
    spelled = {flag: one for one in settings for flag in one.flags}
    places = [one for one in known.values() if one.is_positional]
    ends = frozenset(flag for flag in spelled if not flag.startswith("--"))
    found = Arguments()
    items = list(argv)
    while items:
        item = items.pop(0)
        if item in ("-h", "--help"):
            raise HelpRequested
        if item == "--":
            found.positional += items
            break
        match = _FLAG.fullmatch(item) or _SHORT_FLAG.fullmatch(item)
        if match is None:
            if item.startswith("-") and len(item) > 1:
                raise ConfigError(f"unknown flag {item}{_nearest(item, known)}")
            found.positional.append(item)
            continue
        flag, value = item[: match.end(1)], match[2]
        name = match[1].replace("-", "_")
        if name in old:
            _take_old(old[name], value, items, known, found)
        elif setting := spelled.get(flag):
            found.values.setdefault(setting.name, []).extend(_take(setting, value, items, ends, is_alone=bool(places)))
        else:
            raise ConfigError(f"unknown flag {flag}{_nearest(item, known)}")
    _place(places, found)
    return found


def _place(places: Sequence[Setting], found: Arguments) -> None:
    """Give the values without a flag to the positional settings. What is left stays in `found.positional`."""
    for setting in places:
        if not found.positional:
            return
        value = found.positional.pop(0)
        if setting.name in found.values:
            raise ConfigError(f"{setting.place} is given twice: as {value!r} and by {setting.flag}")
        found.values[setting.name] = [value]


def _take(
    setting: Setting,
    value: str | None,
    items: list[str],
    short_flags: frozenset[str] = frozenset(),
    *,
    is_alone: bool = False,
) -> list[str]:
    """The values of a flag; those that follow it are removed from `items`. Raises ConfigError.

    `is_alone`: the command has positional values, so a flag takes the next word and no more.
    """

    def is_value() -> bool:
        return bool(items) and not items[0].startswith("--") and items[0][:2] not in short_flags

    if value is not None:
        return [value]
    if setting.kind.is_flag:
        # `--flag false` too, where a word there can be nothing else
        return [items.pop(0)] if items and items[0] in BOOLEAN_WORDS and not is_alone else ["true"]
    if setting.kind.is_list:
        taken: list[str] = []
        while is_value() and not (taken and is_alone):
            taken.append(items.pop(0))
        if taken:
            return taken
    elif is_value():
        return [items.pop(0)]
    raise ConfigError(f"{setting.flag} needs a value ({setting.kind.name})")


def _take_old(
    old: OldName, value: str | None, items: list[str], known: Mapping[str, Setting], found: Arguments
) -> None:
    flag = "--" + old.name.replace("_", "-")
    if old.now is None:
        if value is None and items and not items[0].startswith("--"):
            items.pop(0)
        found.warnings.append(f"{flag} has no effect: {old.note}")
        return
    setting = known[old.now]
    found.values.setdefault(old.now, []).extend(_take(setting, value, items))
    found.warnings.append(f"{flag} is now called {setting.flag}")


def read_old_variables(
    command: str, arguments: Arguments, settings: Sequence[Setting], environ: Mapping[str, str]
) -> None:
    """Add the values of variables with old names to `arguments`, where neither flag nor variable of today is set."""
    known = {one.name: one for one in settings}
    for old in OLD_NAMES.get(command, ()):
        variable = old.name.upper()
        if old.now is None or not (text := environ.get(variable, "")):
            continue
        setting = known[old.now]
        if setting.name not in arguments.values and not environ.get(setting.env, ""):
            arguments.values[setting.name] = [text]
            arguments.warnings.append(f"environment variable {variable} is now called {setting.env}")


def _nearest(item: str, known: Mapping[str, Setting]) -> str:
    flags = [flag for setting in known.values() for flag in setting.flags]
    import difflib  # seldom needed: an idle node need not hold it

    near = difflib.get_close_matches(item.partition("=")[0], flags, n=1, cutoff=0.6)
    return f", did you mean {near[0]}?" if near else "; --help lists the known ones"


def build(kind: type[T], arguments: Arguments, environ: Mapping[str, str], *, by_hand: bool = False) -> T:
    """Make a settings dataclass from flags, environment and defaults. Raises ConfigError.

    Fields that are settings dataclasses are made too. `by_hand`: see Setting.variable.
    """
    values: dict[str, Any] = {}
    for name, part in _parts(kind).items():
        values[name] = build(part, arguments, environ, by_hand=by_hand)
    for setting in declared(kind):
        values[setting.name] = _value(setting, arguments, environ, setting.variable(by_hand=by_hand))
    return kind(**values)


def all_settings(kind: type) -> list[Setting]:
    """The settings of a dataclass and of the dataclasses within it."""
    nested = [setting for part in _parts(kind).values() for setting in all_settings(part)]
    return [*nested, *declared(kind)]


def _parts(kind: type) -> dict[str, type]:
    if not dataclasses.is_dataclass(kind):
        return {}
    hints = typing.get_type_hints(kind)
    return {one.name: hints[one.name] for one in dataclasses.fields(kind) if "kind" not in one.metadata}


def _value(setting: Setting, arguments: Arguments, environ: Mapping[str, str], variable: str) -> Any:
    value = _given(setting, arguments, environ, variable)
    if setting.required and value in (None, (), ""):
        name = setting.place if setting.is_positional else setting.flag
        raise ConfigError(f"{name} is required: {setting.help}")
    return value


def _given(setting: Setting, arguments: Arguments, environ: Mapping[str, str], variable: str) -> Any:
    if given := arguments.values.get(setting.name):
        if setting.kind.take is not None:
            return _take_values(setting, given)
        return _parse(setting, ",".join(given) if setting.kind.is_list else given[-1], setting.flag)
    # an empty variable counts as unset: charts write empty ones
    if text := environ.get(variable, ""):
        return _parse(setting, text, f"environment variable {variable}")
    return setting.default


def _take_values(setting: Setting, given: list[str]) -> Any:
    assert setting.kind.take is not None
    try:
        return setting.kind.take(given)
    except SettingError as error:
        raise ConfigError(f"{setting.flag}: {error}") from error


def _parse(setting: Setting, text: str, source: str) -> Any:
    try:
        if not text and setting.default is None and not setting.required:
            return None
        return setting.kind.parse(text)
    except SettingError as error:
        raise ConfigError(f"{source}: {error}") from error
