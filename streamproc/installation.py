"""Our packages `state` and `operators` have common names: makes sure that the ones found are ours.

Runs before anything of ours is imported, so it stands on the standard library alone.
"""

from __future__ import annotations

from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Final

OURS: Final = ("operators", "state")


class Shadowed(Exception):
    """Another package of the same name comes first on the import path."""


def check_installation(root: Path | None = None) -> None:
    """Raise `Shadowed`, saying what stands in the way and where, unless our packages lie together.

    `root` is the folder that should hold them; None: the one that holds `streamproc`.
    """
    root = (root or Path(__file__).parent.parent).resolve()
    for name in OURS:
        spec = find_spec(name)
        if spec is None:
            raise Shadowed(f"the package {name!r}, a part of streamproc, is not installed: install streamproc again")
        found = _folder(spec)
        if found != root / name:
            raise Shadowed(
                f"the package {name!r} at {found}{_distribution(name)} hides the one streamproc needs ({root / name}): "
                "remove it, rename it, or install streamproc into an environment of its own"
            )


def _folder(spec: ModuleSpec) -> Path:
    places = spec.submodule_search_locations
    return Path(next(iter(places)) if places else spec.origin or spec.name).resolve()


def _distribution(name: str) -> str:
    from importlib.metadata import packages_distributions  # slow, and only wanted when things are wrong

    others = sorted({other for other in packages_distributions().get(name, []) if other != "streamproc"})
    return f" (of the distribution {', '.join(others)})" if others else ""
