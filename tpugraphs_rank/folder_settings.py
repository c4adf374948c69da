"""Folders that keep their contents between calls and belong to one set of settings.

Run directories, studies and the collector's output folders all refuse to continue with other
settings than those they began with. The check and its message are here.
"""

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import json_shapes


def differences(stored: Mapping[str, Any], requested: Mapping[str, Any],
                names: Sequence[str] | None = None) -> list[str]:
  """One line for each setting that differs.

  Args:
    stored: the settings that the folder was written with.
    requested: the settings of this call.
    names: the settings to compare. Default: those of `requested`.
  """
  return [f"{name}: stored {stored.get(name)!r}, requested {requested[name]!r}"
          for name in (requested if names is None else names)
          if stored.get(name) != requested[name]]


def refuse_if_different(path: files.PathLike, lines: Sequence[str],
                        remedy: str = "Choose another --output, or use the stored settings to "
                        "continue") -> None:
  """Raises an error that lists the differences, if there are any.

  Args:
    path: the folder or file.
    lines: as `differences` returns them.
    remedy: last line of the message.

  Raises:
    RunDirectoryError: there are differences.
  """
  if lines:
    raise errors.RunDirectoryError(
        f"{path} was written with other settings:\n  " + "\n  ".join(lines) + f"\n{remedy}")


def check(folder: pathlib.Path, settings: Mapping[str, Any]) -> None:
  """Stores the settings in a new folder, or compares them with those of an existing one.

  Raises:
    RunDirectoryError: the folder was written with other settings.
    DataError: the stored settings are damaged.
  """
  path = folder / "settings.json"
  if path.exists():
    stored = json_shapes.read(path, dict, "restore it, or choose another folder")
    refuse_if_different(folder, differences(stored, settings))
  else:
    files.write_json(path, dict(settings))
