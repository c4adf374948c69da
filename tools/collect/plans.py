"""What both collectors keep in their output folder: the plan, and what it was measured with."""

import pathlib
from importlib import metadata
from typing import Any, Dict, Sequence

from tpugraphs_rank import errors
from tpugraphs_rank import files

_PACKAGES = ("jax", "jaxlib", "numpy", "protobuf")


def store(output: pathlib.Path, plan: Dict[str, Any], fixed: Sequence[str], items: str) -> None:
  """Writes `plan.json`; an output folder keeps to the settings that it began with.

  More or fewer items are fine: each one's own part of the plan is what its files were measured by.

  Args:
    output: the folder.
    plan: JSON.
    fixed: keys that must not change.
    items: the key of what is measured, a list of objects with the key `stem`.

  Raises:
    RunDirectoryError: the folder was begun with other settings.
  """
  path = output / "plan.json"
  if path.exists():
    stored = files.read_json(path)
    for key in fixed:
      if stored.get(key) != plan[key]:
        raise errors.RunDirectoryError(
            f"{path} was begun with {key} {stored.get(key)}, now it is {plan[key]}; give the old "
            "value, or choose another --output")
    wanted = {entry["stem"] for entry in plan[items]}
    plan = {**plan, items: plan[items] + [
        entry for entry in stored[items] if entry["stem"] not in wanted]}
  files.write_json(path, plan)


def package_versions() -> Dict[str, str]:
  """Versions of the packages that shape the measurement."""
  return {name: metadata.version(name) for name in _PACKAGES}
