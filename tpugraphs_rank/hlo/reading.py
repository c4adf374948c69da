"""Reads raw protobuf files: detects the message type, and returns programs and measurements.

A protobuf file does not state its message type, and most bytes parse as several types. The content
distinguishes them: the opcodes of an HLO program are at another depth in each message, and a
program that is read at the wrong depth has none.
"""

import dataclasses
import pathlib
from typing import TypeVar

from google.protobuf import message as protobuf_message

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import tuning_pb2

_MessageT = TypeVar("_MessageT", bound=protobuf_message.Message)

TUNING_DATA = "TuningData"
MODULE_TUNING_DATA = "ModuleTuningData"
HLO_MODULE = "HloModuleProto"
HLO = "HloProto"

_EXPECTED = "a TuningData, ModuleTuningData, HloModuleProto or HloProto protobuf"
_HOW_TO_DUMP = (
    "dump it as a protobuf instead: set "
    "XLA_FLAGS='--xla_dump_to=FOLDER --xla_dump_hlo_as_proto' and take a .hlo.pb file of FOLDER, "
    "or in JAX write the bytes of jax.jit(f).lower(x).compiler_ir('hlo')"
    ".as_serialized_hlo_module_proto()")
# First bytes of files that users pass by mistake, and the remedy for each.
_MISTAKES = (
    (b"HloModule", "is HLO text", _HOW_TO_DUMP),
    (b"module @", "is StableHLO (MLIR) text", _HOW_TO_DUMP),
    (b"ML\xefR", "is MLIR bytecode", _HOW_TO_DUMP),
    (b"\x1f\x8b", "is compressed", "unpack it first: gunzip FILE"),
    (b"PK\x03\x04", "is a zip archive (as .npz files are)", "pass the raw .pb file"),
)


@dataclasses.dataclass(frozen=True)
class RawFile:
  """A parsed raw file.

  Attributes:
    source: its name in error messages.
    kind: its message type: `TuningData`, `ModuleTuningData`, `HloModuleProto` or `HloProto`.
    modules: its programs. A plain HLO program is a `ModuleTuningData` without runs.
  """
  source: str
  kind: str
  modules: tuple[tuning_pb2.ModuleTuningData, ...]

  @property
  def has_runs(self) -> bool:
    """Whether this type of file can hold measurements."""
    return self.kind in (TUNING_DATA, MODULE_TUNING_DATA)


def read_raw(path: files.PathLike) -> RawFile:
  """Reads a `.pb` file.

  Raises:
    MissingDataError: there is no such file, or it cannot be read.
    DataError: it is not one of the four message types, or it is truncated.
  """
  path = pathlib.Path(path)
  try:
    data = path.read_bytes()
  except FileNotFoundError:
    raise errors.MissingDataError(f"no file {path}; expected {_EXPECTED}") from None
  except OSError as error:
    raise errors.MissingDataError(
        f"cannot read {path}: {error.strerror}; expected a file with {_EXPECTED}") from error
  return parse_raw(data, str(path))


def parse_raw(data: bytes, source: str = "the input") -> RawFile:
  """Parses the bytes of a raw file; see `read_raw`.

  Args:
    data: content of the file.
    source: its name in error messages.
  """
  if not data:
    raise errors.DataError(f"{source} is empty; expected {_EXPECTED}; write or download it again")
  start = data[:64].lstrip()
  for prefix, what, remedy in _MISTAKES:
    if start.startswith(prefix):
      raise errors.DataError(f"{source} {what}; expected {_EXPECTED}; {remedy}")

  raw = _as_hlo_module(data, source) or _as_one_module(data, source) or _as_tuning(data, source)
  if raw is None:
    raise errors.DataError(
        f"{source} is truncated or has another format; expected {_EXPECTED} that holds an HLO "
        "program; compare its size with the original's, and download or dump it again")
  for module in raw.modules:
    _check_complete(module.module, source)
  return raw


def _parse(message_type: type[_MessageT], data: bytes) -> _MessageT | None:
  """The message, or None if the bytes are not such a message, or its strings are not UTF-8."""
  try:
    return message_type.FromString(data)
  except protobuf_message.DecodeError:
    return None


def _is_program(module: hlo_pb2.HloModuleProto) -> bool:
  """Whether this is an HLO program rather than another message read as one."""
  has_instructions = False
  for computation in module.computations:
    for instruction in computation.instructions:
      if not instruction.opcode:
        return False
      has_instructions = True
  return has_instructions


def _as_hlo_module(data: bytes, source: str) -> RawFile | None:
  module = _parse(hlo_pb2.HloModuleProto, data)
  if module is None or not _is_program(module):
    return None
  return RawFile(source, HLO_MODULE, (tuning_pb2.ModuleTuningData(module=module),))


def _as_one_module(data: bytes, source: str) -> RawFile | None:
  """A `ModuleTuningData` or a `HloProto`: both have the program in field 1."""
  module = _parse(tuning_pb2.ModuleTuningData, data)
  if module is not None and _is_program(module.module) and _is_measured(module):
    return RawFile(source, MODULE_TUNING_DATA, (module,))
  hlo = _parse(hlo_pb2.HloProto, data)
  if hlo is None or not _is_program(hlo.hlo_module):
    return None
  return RawFile(source, HLO, (tuning_pb2.ModuleTuningData(module=hlo.hlo_module),))


def _is_measured(module: tuning_pb2.ModuleTuningData) -> bool:
  """Whether a program has runs.

  Field 3 alone is not enough: in a `HloProto` it is the buffer assignment, which parses as one run,
  but without a configuration.
  """
  if module.fingerprint or module.config_index_to_node or len(module.runs) > 1:
    return True
  return any(
      run.op_config.HasField("tile_size_config") or run.module_config.HasField("layout_config")
      or run.is_default or run.error for run in module.runs)


def _as_tuning(data: bytes, source: str) -> RawFile | None:
  tuning = _parse(tuning_pb2.TuningData, data)
  if tuning is None:
    return None
  with_program = [module for module in tuning.modules if module.HasField("module")]
  if not with_program or not all(_is_program(module.module) for module in with_program):
    return None
  return RawFile(source, TUNING_DATA, tuple(tuning.modules))


def _check_complete(module: hlo_pb2.HloModuleProto, source: str) -> None:
  """Rejects a program whose file ends between two computations, which parses without an error."""
  if module.entry_computation_name and not any(
      computation.id == module.entry_computation_id
      or computation.name == module.entry_computation_name
      for computation in module.computations):
    raise errors.DataError(
        f"{source}: module {module.name!r} lacks its entry computation "
        f"{module.entry_computation_name!r}; expected the whole program; the file is truncated or "
        "damaged: download or dump it again")
