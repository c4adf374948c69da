"""The plan in a collector's output folder, and the records of its measurements."""

import base64
import collections
from collections.abc import Iterable, Sequence
from importlib import metadata
import pathlib
from typing import Any

from tpugraphs_rank import config
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import folder_settings
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.synthesis.programs import programs
from tpugraphs_rank.synthesis.programs import sources

_PACKAGES = ("jax", "jaxlib", "numpy", "protobuf")


def store(output: pathlib.Path, plan: dict[str, Any], fixed: Sequence[str], items: str) -> None:
  """Writes `plan.json`. The settings of an output folder never change.

  Items may be added or left out: each one's entry in the plan records how its files were measured.

  Args:
    output: the folder.
    plan: JSON.
    fixed: keys that must not change.
    items: the key of the kernels or programs, a list of objects with the key `stem`.

  Raises:
    RunDirectoryError: the folder was started with other settings.
  """
  path = output / "plan.json"
  if path.exists():
    stored = files.read_json(path)
    folder_settings.refuse_if_different(path, folder_settings.differences(stored, plan, fixed))
    planned = {entry["stem"] for entry in plan[items]}
    plan = {**plan, items: plan[items] + [
        entry for entry in stored[items] if entry["stem"] not in planned]}
  files.write_json(path, plan)


def chosen_families(families: Iterable[str] | None, known: Iterable[str], what: str) -> list[str]:
  """The families of a catalogue to use.

  Args:
    families: names of families; None: all.
    known: the families of the catalogue.
    what: what a family has in common with others, "kernel" or "model"; used in the message.

  Raises:
    UnknownNameError: the catalogue does not have a family.
  """
  listed = list(known)
  names = listed if families is None else list(families)
  for name in names:
    if name not in listed:
      raise errors.UnknownNameError(
          f"unknown {what} family {name!r}{config.nearest(name, listed)}; the families are "
          f"{', '.join(sorted(listed))}")
  return names


def record_path(output: pathlib.Path, stem: str, pass_number: int) -> pathlib.Path:
  """The file with one pass's measurements of a kernel or program."""
  return output / "measured" / f"{stem}.pass{pass_number}.json"


def module_proto(record: dict[str, Any]) -> hlo_pb2.HloModuleProto:
  """The HLO module of a record, named after its stem, without source positions."""
  module = hlo_pb2.HloModuleProto.FromString(base64.b64decode(record["module"]))
  module.DiscardUnknownFields()
  module.name = record["stem"]
  return module


def read_synthetic(path: pathlib.Path) -> list[programs.RunnableProgram]:
  """The synthetic programs in a file, as `tpugraphs-rank synthesize` writes it.

  Raises:
    MissingDataError: the file does not exist.
    DataError: it holds something else, or two programs of one name.
  """
  read = sources.from_json(files.read_json(path), str(path))
  stems = collections.Counter(program.stem for program in read)
  repeated = sorted(stem for stem, count in stems.items() if count > 1)
  if repeated:
    raise errors.DataError(f"{path}: two programs are named {repeated[0]}")
  return read


def package_versions() -> dict[str, str]:
  """Versions of the packages that affect the measurement."""
  return {name: metadata.version(name) for name in _PACKAGES}
