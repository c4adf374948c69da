"""Folders whose contents are kept from call to call belong to one set of settings."""

import hashlib
import pathlib
from typing import Any, Dict

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.synthesis import dags


def digest(graphs: dags.Dags) -> str:
  """16 hex digits of the graphs' structures and labels."""
  return hashlib.sha256(graphs.wl.tobytes() + graphs.y.tobytes()).hexdigest()[:16]


def check(folder: pathlib.Path, settings: Dict[str, Any]) -> None:
  """Remembers the settings in a new folder, and compares them in one that is kept.

  Raises:
    RunDirectoryError: what lies in the folder was made with other settings.
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
        f"{folder} holds what other settings made:\n  " + "\n  ".join(differing)
        + "\nChoose another --output, or the stored settings to go on")
