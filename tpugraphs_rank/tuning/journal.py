"""Files to which a JSON object is added per line, and which survive a killed process.

A process that is killed while it writes leaves an incomplete last line, without the end of the
line. It is passed over, and the next line replaces it. Nothing else may be damaged.
"""

from collections.abc import Iterator, Mapping
import io
import json
import pathlib
from typing import Any, BinaryIO

from tpugraphs_rank import errors
from tpugraphs_rank import files

_END = b"\n"
_EXPECTED = "expected a JSON object per line; remove this line, or use another folder"


def append(path: pathlib.Path, line: Mapping[str, Any]) -> None:
  """Adds a line. Once this returns, the line survives the process.

  Raises:
    DataError: the last line has no end, and is not what a killed process leaves.
    OutputError: the file cannot be written.
  """
  text = json.dumps(line, allow_nan=False).encode() + _END
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.open_to_append(path) as file:
      if not _is_complete(file):
        file.seek(0)
        content = file.read()
        complete = content.rfind(_END) + 1
        place = f"{path}, line {len(content.split(_END))}"
        if _parsed(content[complete:], place, may_be_incomplete=True) is None:
          file.truncate(complete)
        else:
          file.write(_END)
      file.write(text)
      file.flush()
  except OSError as error:
    if isinstance(error, errors.TpuGraphsRankError):
      raise
    raise files.output_error(path, error) from error


def _is_complete(file: BinaryIO) -> bool:
  """Whether the last line has an end, or there is none."""
  size = file.seek(0, io.SEEK_END)
  if not size:
    return True
  file.seek(size - 1)
  return file.read(1) == _END


def lines(path: pathlib.Path) -> Iterator[tuple[str, dict[str, Any]]]:
  """The lines of a file, each with its place for messages; none if there is no file.

  An incomplete last line that a killed process left is passed over.

  Raises:
    DataError: a line is damaged otherwise.
    MissingDataError: the file cannot be read.
  """
  if not path.exists():
    return
  listed = files.read_bytes(path, "a journal with a JSON object per line").split(_END)
  for number, text in enumerate(listed, 1):
    is_last = number == len(listed)
    if is_last and not text:
      return
    place = f"{path}, line {number}"
    line = _parsed(text, place, is_last)
    if line is not None:
      yield place, line


def _parsed(text: bytes, place: str, may_be_incomplete: bool) -> dict[str, Any] | None:
  """The object in a line; None if it is incomplete, which only a line without an end may be.

  Raises:
    DataError: it is damaged.
  """
  try:
    line = files.parse_json(text, place)
  except errors.DataError as error:
    if may_be_incomplete and text.startswith(b"{"):
      return None
    raise errors.DataError(f"{error}; {_EXPECTED}") from None
  if not isinstance(line, dict):
    raise errors.DataError(f"{place}: {_EXPECTED}")
  return line
