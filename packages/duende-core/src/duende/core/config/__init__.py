"""The configuration: from duende.toml to what is executed.

Names are loaded when first asked for (PEP 562), so that the verbs that only need to
know where a project's files are import neither attrs nor cattrs nor tomllib.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from duende.core.config.codec import config_from_json as config_from_json
    from duende.core.config.codec import config_to_json as config_to_json
    from duende.core.config.launch import Launch as Launch
    from duende.core.config.launch import render_launch as render_launch
    from duende.core.config.load import load_project as load_project
    from duende.core.config.model import DaemonConfig as DaemonConfig
    from duende.core.config.model import ProjectConfig as ProjectConfig
    from duende.core.config.plan import DaemonSpec as DaemonSpec
    from duende.core.config.plan import Plan as Plan
    from duende.core.config.plan import plan_project as plan_project
    from duende.core.config.project import ProjectPaths as ProjectPaths
    from duende.core.config.project import locate_project as locate_project
    from duende.core.config.schema import json_schema as json_schema
    from duende.core.config.support import unsupported as unsupported

_PLACES = {
    "DaemonConfig": "model",
    "DaemonSpec": "plan",
    "Launch": "launch",
    "Plan": "plan",
    "ProjectConfig": "model",
    "ProjectPaths": "project",
    "config_from_json": "codec",
    "config_to_json": "codec",
    "json_schema": "schema",
    "load_project": "load",
    "locate_project": "project",
    "plan_project": "plan",
    "render_launch": "launch",
    "unsupported": "support",
}

__all__ = tuple(_PLACES)


def __getattr__(name: str) -> object:
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{place}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
