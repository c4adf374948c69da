"""Folders that keep their contents from call to call belong to one set of settings."""

import pathlib
from typing import Any

from tpugraphs_rank import errors
from tpugraphs_rank import files


def check(folder: pathlib.Path, settings: dict[str, Any]) -> None:
  """Stores the settings in a new folder, and compares them with those of an existing one.

  Raises:
    RunDirectoryError: the contents of the folder were made with other settings.
  """
  path = folder / "settings.json"
  if not path.exists():
    files.write_json(path, settings)
    return
  stored = files.read_json(path)
  differing = [f"{name}: stored {stored.get(name)!r}, asked {value!r}"
               for name, value in settings.items() if stored.get(name) != value]
  if differing:
    raise errors.RunDirectoryError(
        f"{folder} was written with other settings:\n  " + "\n  ".join(differing)
        + "\nChoose another --output, or use the stored settings to continue")
