"""Settings that ship with the package and are used by name: `--config tile_xla_cpu`."""

import pathlib
from typing import Any

from tpugraphs_rank import config
from tpugraphs_rank import errors
from tpugraphs_rank import files

_IGNORED = ("comment", "note")
_FOLDER = pathlib.Path(__file__).resolve().parent


def names() -> list[str]:
  """The names of the recipes, sorted."""
  return sorted(path.stem for path in _FOLDER.glob("*.json"))


def path(name_or_path: files.PathLike) -> pathlib.Path:
  """The file of a recipe, or the path itself if it is that of a file.

  Raises:
    MissingDataError: there is no such file or recipe.
  """
  file = pathlib.Path(name_or_path)
  if file.is_dir() and str(name_or_path) not in names():
    raise errors.MissingDataError(
        f"{name_or_path} is a folder; expected the path of a JSON file or the name of a recipe. "
        f"The settings of a run are in its config.json: --config {file / 'config.json'}")
  if file.exists() and not file.is_dir():  # `read` refuses pipes and devices by name.
    return file
  if str(name_or_path) in names():
    return _FOLDER / f"{name_or_path}.json"
  raise errors.MissingDataError(
      f"no settings file {name_or_path}{config.nearest(str(name_or_path), names())}; expected the "
      f"path of a JSON file or the name of a recipe: {', '.join(names())}")


def read(name_or_path: files.PathLike) -> Any:
  """The settings in a recipe, a JSON file, or a run directory's config.json.

  The top-level texts "comment" and "note" are ignored, because JSON has no comments.

  Raises:
    MissingDataError: there is no such file or recipe.
    DataError: the file is not JSON.
  """
  stored = files.read_json(path(name_or_path))
  if not isinstance(stored, dict):
    return stored
  if set(stored) == {"config", "hash", "about"}:
    return stored["config"]
  return {key: value for key, value in stored.items() if key not in _IGNORED}
