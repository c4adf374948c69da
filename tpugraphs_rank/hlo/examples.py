"""Programs that ship with the package, to try commands on: `bundled:matmul`."""

import pathlib

from tpugraphs_rank import config
from tpugraphs_rank import errors
from tpugraphs_rank import files

_PREFIX = "bundled:"
_SUFFIX = ".hlo.pb"
_FOLDER = pathlib.Path(__file__).resolve().parents[1] / "bundled" / "examples"


def names() -> list[str]:
  """The names of the programs, without their prefix."""
  return sorted(path.name.removesuffix(_SUFFIX) for path in _FOLDER.glob(f"*{_SUFFIX}"))


def path_of(source: files.PathLike) -> pathlib.Path:
  """The file of a program: that of an example if it is named `bundled:NAME`, or the path itself.

  Raises:
    UnknownNameError: there is no such example; the message lists the names.
  """
  text = str(source)
  if not text.startswith(_PREFIX):
    return pathlib.Path(source)
  name = text.removeprefix(_PREFIX)
  if name not in names():
    raise errors.UnknownNameError(
        f"no bundled program {name!r}{config.nearest(name, names())}; expected one of: "
        + ", ".join(f"{_PREFIX}{known}" for known in names()))
  return _FOLDER / f"{name}{_SUFFIX}"
