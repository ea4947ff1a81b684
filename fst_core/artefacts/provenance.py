"""Provenance: which component made an artefact, and how to find it again."""

from __future__ import annotations

import json
import re
from importlib.metadata import PackageNotFoundError, distribution
from typing import TYPE_CHECKING, Any

from fst_core.artefacts.digests import digest_fields
from fst_core.components import NAME
from fst_core.errors import ArtefactError, MissingPlugin, UnknownComponent
from fst_core.plugins import registry, version_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fst_core.plugins import Offer
    from fst_core.settings import Settings

__all__ = ["record", "resolve"]

_SAID = {
    "use": NAME.pattern,
    "plugin": NAME.pattern,
    "distribution": r"[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?",
    "version": r"[A-Za-z0-9][A-Za-z0-9.!+_-]{0,98}",
}
"""What a record may say of a component: it ends up in a line that people copy into a shell."""


def record(offer: Offer, settings: Settings | None) -> dict[str, Any]:
    """Return what an artefact says of a component: plain data, for `fst.json`."""
    filled = {} if settings is None else settings.model_dump(mode="json")
    said = {
        "use": offer.name,
        "plugin": offer.plugin,
        "distribution": offer.distribution,
        "version": offer.version,
        "format": offer.implementation().format,
        "settings": filled,
        "settings_sha256": digest_fields(filled),
    }
    url = _direct_url(offer.distribution)
    return said | ({"direct_url": url} if url else {})


def resolve(kind: str, said: Mapping[str, Any], place: str) -> Offer:
    """Return the installed component that an artefact's record names.

    Raises:
        ArtefactError: the record is damaged, or says what no component can be named.
        MissingPlugin: its plugin is not installed; the message names the distribution and the pip line.
    """
    here = ", ".join(o.name for o in registry().of_kind(kind)) or "none"
    for name, form in _SAID.items():
        value = said.get(name)
        if not isinstance(value, str) or not re.fullmatch(form, value):
            raise ArtefactError(
                f"{place}: does not say which {kind} made it: {name} = {ascii(value)[:80]}. "
                f"Installed {kind}s: {here}"
            )
    address = f"{said['plugin']}/{said['use']}"
    dist, version = said["distribution"], said["version"]
    try:
        return registry().find(kind, address)
    except UnknownComponent:
        found = version_of(dist)
        if found is not None:
            cause = f"{dist} is installed as {found}, which does not offer it"
        else:
            cause = f"{dist} is not installed"
        raise MissingPlugin(
            f"{place}: made with {kind} '{address}' of {dist} {version}, and {cause}. "
            f"Install it: pip install {dist}=={version}. Installed {kind}s: {here}"
        ) from None


def _direct_url(dist: str) -> str | None:
    """Return where a distribution was installed from (PEP 610), unless that is a place on this machine."""
    try:
        text = distribution(dist).read_text("direct_url.json")
    except PackageNotFoundError:
        return None
    url = json.loads(text).get("url", "") if text else ""
    return None if url.startswith("file:") else url or None
