"""The programs in a folder, such as one that XLA has dumped."""

from collections.abc import Iterable
import logging
import pathlib

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.hlo import compression
from tpugraphs_rank.hlo import file_types
from tpugraphs_rank.hlo import reading

_logger = logging.getLogger(__name__)

# XLA dumps these next to the programs.
_NO_PROGRAMS = ("-memory-usage-report", "-buffer-assignment")
# The name of a text file does not tell what it contains, its beginning does.
_HEAD = 1 << 16


def programs(folder: pathlib.Path) -> list[pathlib.Path]:
  """The files with programs directly in a folder, by name.

  Passed over are folders in it, files of the operating system, files of other types, and the text
  of a program that is also there as a protobuf. Log lines count them.

  Args:
    folder: an existing folder.

  Raises:
    MissingDataError: the folder holds no program, or cannot be read.
  """
  try:
    entries = sorted(folder.iterdir())
  except OSError as error:
    raise errors.MissingDataError(f"cannot read {folder}: {error.strerror}") from error
  found = files.without_companions(
      [path for path in entries if path.is_file()], _logger, folder)
  by_type: dict[str, list[pathlib.Path]] = {"binary": [], "text": [], "other": []}
  for path in found:
    by_type[_type(path)].append(path)
  named = {_program_name(path) for path in by_type["binary"]}
  texts = [path for path in by_type["text"] if _program_name(path) not in named]
  _count(folder, [path for path in entries if path.is_dir() and not _is_hidden(path)],
         ("folder", "whose files are not read"), ("folders", "whose files are not read"))
  _count(folder, set(by_type["text"]) - set(texts), ("file", "which is also there as a protobuf"),
         ("files", "which are also there as protobufs"))
  _count(folder, by_type["other"], ("file", "which holds no program"),
         ("files", "which hold no program"))
  if not by_type["binary"] and not texts:
    raise errors.MissingDataError(
        f"{folder} contains no program; expected files such as NAME.pb, NAME.hlo.pb.gz or HLO "
        "text directly in this folder: give the folder that contains them, or the files "
        "themselves")
  return sorted([*by_type["binary"], *texts])


def _type(path: pathlib.Path) -> str:
  name = _uncompressed(path.name)
  if not name.endswith(reading.SUFFIXES) or any(
      pathlib.PurePath(name).stem.endswith(end) for end in _NO_PROGRAMS):
    return "other"
  if not name.endswith(".txt"):
    return "binary"
  return "text" if _is_program_text(path) else "other"


def _is_program_text(path: pathlib.Path) -> bool:
  try:
    with open(path, "rb") as file:
      data = file.read(_HEAD)
    if path.name.endswith(reading.COMPRESSED_SUFFIXES):
      data = compression.unpack(path.read_bytes(), str(path))
  except (OSError, errors.DataError):
    return True  # So that reading it reports the problem.
  text = file_types.decode(data[:_HEAD])
  return text is not None and (file_types.is_hlo(text) or file_types.is_mlir(text))


def _uncompressed(name: str) -> str:
  for suffix in reading.COMPRESSED_SUFFIXES:
    name = name.removesuffix(suffix)
  return name


def _program_name(path: pathlib.Path) -> str:
  """`f` for `f.hlo.pb`, `f.txt` and `f.pb.gz`."""
  name = _uncompressed(path.name)
  return name.removesuffix(pathlib.PurePath(name).suffix).removesuffix(".hlo")


def _is_hidden(folder: pathlib.Path) -> bool:
  return folder.name.startswith((".", "__"))


def _count(folder: pathlib.Path, paths: Iterable[pathlib.Path], one: tuple[str, str],
           several: tuple[str, str]) -> None:
  """Logs how many paths were passed over, what they are and why, in singular or plural."""
  names = sorted(path.name for path in paths)
  if names:
    kind, why = one if len(names) == 1 else several
    _logger.info("%s: passed over %d %s (%s), %s", folder, len(names), kind,
                 ", ".join([*names[:3], "..."][:len(names)]), why)
