"""The plan in a collector's output folder, and the records of its measurements."""

import base64
import binascii
import collections
from collections.abc import Iterable, Iterator, Sequence
import contextlib
import dataclasses
from importlib import metadata
import pathlib
from typing import Any, Protocol, TypeVar

from google.protobuf import message as protobuf_message

from tpugraphs_rank import config
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import folder_settings
from tpugraphs_rank import json_shapes
from tpugraphs_rank.collect.common import protocol
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.synthesis.programs import programs
from tpugraphs_rank.synthesis.programs import sources


class _HasName(Protocol):

  @property
  def stem(self) -> str:
    ...


_Named = TypeVar("_Named", bound=_HasName)

_PACKAGES = ("jax", "jaxlib", "numpy", "protobuf")
PLAN = "plan.json"
_REMEDY = "restore it, or choose another --output"
# What every plan holds: the kernels or programs, whose names are those of files.
_ITEMS: json_shapes.Shape = [{"stem": json_shapes.NAME}]
_MEASURED: json_shapes.Shape = {"runtime_ns": int, "optimised_hlo": str}
_FAILED: json_shapes.Shape = {"failed": str}
_RECORD: json_shapes.Shape = {
    "stem": json_shapes.NAME, "module": str, "date": str, "total_s": float, "machine?": str}


def read(output: pathlib.Path, items: str = "", settings: json_shapes.Shape | None = None
         ) -> dict[str, Any]:
  """Reads `plan.json`.

  Args:
    output: the folder.
    items: the key of the kernels or programs; "": the folder has none.
    settings: the shape of further keys that are used.

  Raises:
    MissingDataError: there is none.
    DataError: it is damaged.
  """
  return json_shapes.read(output / PLAN, {
      **({items: _ITEMS} if items else {}), **(settings or {})}, _REMEDY)


def protocol_of(plan: dict[str, Any], source: pathlib.Path) -> protocol.Protocol:
  """The protocol in a plan.

  Raises:
    DataError: it is damaged.
  """
  names = [field.name for field in dataclasses.fields(protocol.Protocol)]
  json_shapes.check(plan, {"protocol": dict.fromkeys(names, int)}, str(source), _REMEDY)
  return protocol.Protocol(**{name: plan["protocol"][name] for name in names})


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
    DataError: its plan is damaged.
  """
  path = output / PLAN
  if path.exists():
    stored = read(output, items)
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


def names(path: files.PathLike) -> list[str]:
  """The names of kernels or programs in a file, one a line.

  Raises:
    MissingDataError: the file does not exist, or cannot be read.
    DataError: it is no text.
  """
  expected = "a text file with names of kernels or programs, one a line"
  try:
    return files.read_bytes(path, expected).decode().split()
  except UnicodeDecodeError as error:
    raise errors.DataError(f"{path}: not UTF-8; expected {expected}") from error


def without(items: Sequence[_Named], exclude: str | None, limit: int | None) -> list[_Named]:
  """The first kernels or programs of a catalogue that are not excluded.

  Args:
    items: all of them.
    exclude: a file of `names`; None: none is excluded.
    limit: maximum number; None: all.
  """
  excluded = set(names(exclude)) if exclude else set()
  return [item for item in items if item.stem not in excluded][:limit]


def record_path(output: pathlib.Path, stem: str, pass_number: int) -> pathlib.Path:
  """The file with one pass's measurements of a kernel or program."""
  return output / "measured" / f"{stem}.pass{pass_number}.json"


def read_record(path: pathlib.Path, configuration: dict[str, json_shapes.Shape],
                more: json_shapes.Shape | None = None) -> dict[str, Any]:
  """Reads the record of a pass.

  Args:
    path: the file.
    configuration: the shape of what identifies a configuration.
    more: the shape of further keys that are used, if the pass did not fail.

  Raises:
    MissingDataError: there is none.
    DataError: it is damaged.
  """
  remedy = f"delete {path.name} to measure it again"
  record = json_shapes.read(path, dict, remedy)
  if "failed" in record:
    json_shapes.check(record, _FAILED, str(path), remedy)
    return record
  shape = {**_RECORD, **(more or {}), "configurations": [{"status": str, **configuration}]}
  json_shapes.check(record, shape, str(path), remedy)
  for number, entry in enumerate(record["configurations"]):
    if entry["status"] == "ok":
      json_shapes.check(entry, _MEASURED, f"{path}: configuration {number}", remedy)
  return record


@contextlib.contextmanager
def numbers_fit(record: dict[str, Any]) -> Iterator[None]:
  """For a block that puts a record into protobuf messages, whose numbers have limits.

  Raises:
    DataError: a number of the record does not fit.
  """
  try:
    yield
  except ValueError as error:
    if isinstance(error, errors.TpuGraphsRankError):
      raise
    raise errors.DataError(
        f"the record of {record['stem']} is damaged: {error}; delete it to measure it again"
        ) from None


def read_report(output: pathlib.Path, items: str, more: json_shapes.Shape | None = None
                ) -> dict[str, Any]:
  """Reads `report.json`, the collector's report.

  Args:
    output: the folder.
    items: the key of the kernels or programs.
    more: the shape of further keys of each that are used.

  Raises:
    MissingDataError: there is none.
    DataError: it is damaged.
  """
  return json_shapes.read(output / "report.json", {
      "machine": {"cpu": str}, "versions": dict, "dates": [str], "seed": int, "protocol": dict,
      "failed": {str: str}, "unfinished": [str],
      items: {json_shapes.NAME: {
          "dropped": {str: int}, "seconds": [float], **(more or {})}}},
      "run the collector again, which writes it again")


def module_proto(record: dict[str, Any]) -> hlo_pb2.HloModuleProto:
  """The HLO module of a record, named after its stem, without source positions.

  Raises:
    DataError: it is damaged.
  """
  try:
    module = hlo_pb2.HloModuleProto.FromString(base64.b64decode(record["module"], validate=True))
  except (binascii.Error, ValueError, protobuf_message.DecodeError) as error:
    raise errors.DataError(
        f"the record of {record['stem']} is damaged: its module cannot be read ({error}); delete "
        "it to measure it again") from None
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
