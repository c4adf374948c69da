"""Files to which a JSON object is added per line, and which survive a killed process."""

from collections.abc import Iterator, Mapping
import json
import pathlib
from typing import Any

from tpugraphs_rank import errors
from tpugraphs_rank import files


def append(path: pathlib.Path, line: Mapping[str, Any]) -> None:
  """Adds a line. Once this returns, the line survives the process.

  Raises:
    OutputError: the file cannot be written.
  """
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
      # A killed process may have left half a line.
      end = file.seek(0, 2)
      if end:
        file.seek(end - 1)
        if file.read(1) != b"\n":
          file.write(b"\n")
      file.write(json.dumps(line, allow_nan=False).encode() + b"\n")
      file.flush()
  except OSError as error:
    raise files.output_error(path, error) from error


def lines(path: pathlib.Path) -> Iterator[tuple[str, dict[str, Any]]]:
  """The lines of a file, each with its place for messages; none if there is no file.

  Half a line that a killed process left is passed over.

  Raises:
    DataError: a line is damaged otherwise.
    MissingDataError: the file cannot be read.
  """
  if not path.exists():
    return
  content = files.read_bytes(path, "a journal with a JSON object per line")
  for number, text in enumerate(content.split(b"\n"), 1):
    if not text:
      continue
    place = f"{path}, line {number}"
    try:
      line = files.parse_json(text, place)
      if not isinstance(line, dict):
        raise errors.DataError(f"{place}: expected a JSON object")
    except errors.DataError:
      # Half a line of a killed process, to which a later one has added the end of the line.
      if not text.endswith(b"}"):
        continue
      raise
    yield place, line
