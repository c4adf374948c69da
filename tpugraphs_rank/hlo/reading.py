"""Raw protobuf files: which message a file holds, and its programs with their measurements.

A protobuf file does not say which message it is, and most bytes parse as several. What tells
them apart is the content: the opcodes of an HLO program sit at another depth in each message, and
a program read at the wrong depth has none.
"""

import dataclasses
import pathlib

from google.protobuf import message as protobuf_message

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import tuning_pb2

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
# First bytes of files that people hand over by mistake, and what to do about each.
_MISTAKES = (
    (b"HloModule", "is HLO text", _HOW_TO_DUMP),
    (b"module @", "is StableHLO (MLIR) text", _HOW_TO_DUMP),
    (b"ML\xefR", "is MLIR bytecode", _HOW_TO_DUMP),
    (b"\x1f\x8b", "is compressed", "unpack it first: gunzip FILE"),
    (b"PK\x03\x04", "is a zip archive (as .npz files are)", "give the raw .pb file"),
)


@dataclasses.dataclass(frozen=True)
class RawFile:
  """One raw file, parsed.

  Attributes:
    source: where it came from, for messages.
    kind: the message it holds: `TuningData`, `ModuleTuningData`, `HloModuleProto` or `HloProto`.
    modules: its programs; a bare HLO program comes as a `ModuleTuningData` without runs.
  """
  source: str
  kind: str
  modules: tuple[tuning_pb2.ModuleTuningData, ...]

  @property
  def has_runs(self) -> bool:
    """Whether this kind of file holds measurements at all."""
    return self.kind in (TUNING_DATA, MODULE_TUNING_DATA)


def read_raw(path: files.PathLike) -> RawFile:
  """Reads a `.pb` file.

  Raises:
    MissingDataError: there is no such file, or it cannot be read.
    DataError: it is none of the four messages, or is cut short.
  """
  path = pathlib.Path(path)
  try:
    data = path.read_bytes()
  except FileNotFoundError:
    raise errors.MissingDataError(f"no file {path}; expected {_EXPECTED}") from None
  except OSError as error:
    raise errors.MissingDataError(f"cannot read {path}: {error.strerror}") from error
  return parse_raw(data, str(path))


def parse_raw(data: bytes, source: str = "the input") -> RawFile:
  """Parses the bytes of a raw file; see `read_raw`.

  Args:
    data: the file's content.
    source: what error messages call it.
  """
  if not data:
    raise errors.DataError(f"{source} is empty; expected {_EXPECTED}; write or fetch it again")
  start = data[:64].lstrip()
  for prefix, what, remedy in _MISTAKES:
    if start.startswith(prefix):
      raise errors.DataError(f"{source} {what}; expected {_EXPECTED}; {remedy}")

  raw = _as_hlo_module(data, source) or _as_one_module(data, source) or _as_tuning(data, source)
  if raw is None:
    raise errors.DataError(
        f"{source} is cut short or of another format; expected {_EXPECTED} that holds an HLO "
        "program; compare its size with the original's, and fetch or dump it again")
  for module in raw.modules:
    _check_complete(module.module, source)
  return raw


def _parse(message_type, data: bytes):
  """The message, or None if the bytes are not one (strings that are not UTF-8 are found too)."""
  try:
    return message_type.FromString(data)
  except protobuf_message.DecodeError:
    return None


def _is_program(module: hlo_pb2.HloModuleProto) -> bool:
  """Whether this is an HLO program rather than another message read as one."""
  found = False
  for computation in module.computations:
    for instruction in computation.instructions:
      if not instruction.opcode:
        return False
      found = True
  return found


def _as_hlo_module(data: bytes, source: str) -> RawFile | None:
  module = _parse(hlo_pb2.HloModuleProto, data)
  if module is None or not _is_program(module):
    return None
  return RawFile(source, HLO_MODULE, (tuning_pb2.ModuleTuningData(module=module),))


def _as_one_module(data: bytes, source: str) -> RawFile | None:
  """A `ModuleTuningData` or a `HloProto`: both hold the program in field 1."""
  module = _parse(tuning_pb2.ModuleTuningData, data)
  if module is not None and _is_program(module.module) and _is_measured(module):
    return RawFile(source, MODULE_TUNING_DATA, (module,))
  hlo = _parse(hlo_pb2.HloProto, data)
  if hlo is None or not _is_program(hlo.hlo_module):
    return None
  return RawFile(source, HLO, (tuning_pb2.ModuleTuningData(module=hlo.hlo_module),))


def _is_measured(module: tuning_pb2.ModuleTuningData) -> bool:
  """Whether a program comes with runs.

  Field 3 alone does not tell: in a `HloProto` it is the buffer assignment, which reads as one
  run, but as one that has no configuration with content.
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
  """Refuses a program whose file ends between two computations, which parses without an error."""
  if module.entry_computation_name and not any(
      computation.id == module.entry_computation_id
      or computation.name == module.entry_computation_name
      for computation in module.computations):
    raise errors.DataError(
        f"{source}: module {module.name!r} lacks its entry computation "
        f"{module.entry_computation_name!r}; expected the whole program; the file is cut short or "
        "damaged: fetch or dump it again")
