"""Reads programs and measurements from every kind of file that people have.

- **Raw data and HLO as protobufs**: `TuningData`, `ModuleTuningData`, `HloModuleProto`,
  `HloProto` and `HloSnapshot`. A protobuf file does not state its message type, and most bytes
  parse as several types. The content distinguishes them: the opcodes of an HLO program are at
  another depth in each message, and a program that is read at the wrong depth has none.
- **HLO text**, which XLA dumps and JAX prints. See `tpugraphs_rank.hlo.text`.
- **StableHLO**, as text or bytecode. JAX's compiler converts it, in the collector's environment.

All of them may be compressed with gzip, xz or bzip2. Names of files have no influence.
"""

import dataclasses
import pathlib
import stat
from typing import TypeVar

from google.protobuf import message as protobuf_message

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import files
from tpugraphs_rank import registries
from tpugraphs_rank.hlo import compression
from tpugraphs_rank.hlo import file_types
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import limits
from tpugraphs_rank.hlo import printed_order
from tpugraphs_rank.hlo import text as hlo_text
from tpugraphs_rank.hlo import tuning_pb2

_MessageT = TypeVar("_MessageT", bound=protobuf_message.Message)

TUNING_DATA = "TuningData"
MODULE_TUNING_DATA = "ModuleTuningData"
HLO_MODULE = "HloModuleProto"
HLO = "HloProto"
HLO_SNAPSHOT = "HloSnapshot"
HLO_TEXT = "HLO text"
STABLEHLO = "StableHLO"

# Endings of the names of programs, and of compressed files.
SUFFIXES = (".hlo.pb", ".hlo.txt", ".pb", ".hlo", ".txt", ".mlir", ".mlirbc", ".stablehlo")
COMPRESSED_SUFFIXES = (".gz", ".xz", ".bz2")

_EXPECTED = (
    "an HLO program (protobuf or text), a StableHLO program, or raw data (TuningData or "
    "ModuleTuningData)")


@dataclasses.dataclass(frozen=True)
class RawFile:
  """A parsed raw file.

  Attributes:
    source: its name in error messages.
    kind: what it is: `TuningData`, `ModuleTuningData`, `HloModuleProto`, `HloProto`,
      `HloSnapshot`, `HLO text` or `StableHLO`.
    modules: its programs. A plain HLO program is a `ModuleTuningData` without runs. The
      computations of plain programs are in the order in which XLA prints them.
  """
  source: str
  kind: str
  modules: tuple[tuning_pb2.ModuleTuningData, ...]

  @property
  def has_runs(self) -> bool:
    """Whether this type of file can hold measurements."""
    return self.kind in (TUNING_DATA, MODULE_TUNING_DATA)


def stem(path: files.PathLike) -> str:
  """The name of a file without the ending of its type: `f` for `f.hlo.pb.gz`; `a.b` for `a.b.txt`.

  `.hlo.pb` keeps its `.hlo`, as it always did: `f.hlo.pb` gives `f.hlo`.
  """
  name = pathlib.PurePath(path).name
  for suffix in COMPRESSED_SUFFIXES:
    name = name[:-len(suffix)] if name.endswith(suffix) and name != suffix else name
  return pathlib.PurePath(name).stem


def read_raw(path: files.PathLike) -> RawFile:
  """Reads a file with programs.

  Raises:
    MissingDataError: there is no such file, or it cannot be read.
    DataError: it holds nothing that can be read as a program, or it is cut off or damaged.
    LimitError: it is larger than `compression.MAX_BYTES`, or unpacks to more; or a program has too
      many instructions.
    OutputError: it is StableHLO, and the environment that converts it cannot be made.
  """
  path = pathlib.Path(path)
  try:
    status = path.stat()
    # A pipe or a device may never end.
    if not stat.S_ISREG(status.st_mode):
      what = "a pipe or device"
      if stat.S_ISDIR(status.st_mode):
        is_model = (path / "saved_model.pb").exists()
        what = "the folder of a TensorFlow SavedModel" if is_model else "a folder"
      raise errors.MissingDataError(
          f"cannot read {path}: it is {what}; expected a file with {_EXPECTED}")
    if status.st_size > compression.MAX_BYTES:
      raise errors.LimitError(
          f"{path} has {status.st_size >> 20:,} MiB; the limit for a program is "
          f"{compression.MAX_BYTES >> 20} MiB; check that it is the right file")
    data = path.read_bytes()
  except errors.TpuGraphsRankError:
    raise
  except FileNotFoundError:
    raise errors.MissingDataError(f"no file {path}; expected {_EXPECTED}") from None
  except (OSError, ValueError) as error:  # ValueError: a null character in the name.
    reason = getattr(error, "strerror", None) or error
    raise errors.MissingDataError(
        f"cannot read {path}: {reason}; expected a file with {_EXPECTED}") from error
  return parse_raw(data, str(path))


def parse_raw(data: bytes, source: str = "the input") -> RawFile:
  """Parses the bytes of a raw file; see `read_raw`.

  Args:
    data: content of the file.
    source: its name in error messages.
  """
  if not data:
    raise _empty(source)
  data = compression.unpack(data, source)
  text = file_types.decode(data)
  if text is not None and file_types.is_hlo(text):
    module = hlo_text.parse(text, source)
    printed_order.sort_computations(module, as_printed=True)
    return RawFile(source, HLO_TEXT, (tuning_pb2.ModuleTuningData(module=module),))
  if data.startswith(file_types.MLIR_BYTECODE) or text is not None and file_types.is_mlir(text):
    # Without the byte order mark, which the converter does not expect.
    return _convert(data if text is None else text.encode(), source)

  raw = (_as_hlo_module(data, source) or _as_snapshot(data, source)
         or _as_one_module(data, source) or _as_tuning(data, source))
  if raw is None:
    raise _refusal(data, text, source)
  for module in raw.modules:
    limits.check_instructions(module.module, source)
    _check_complete(module.module, source)
    if not raw.has_runs:
      printed_order.sort_computations(module.module)
  return raw


def _convert(data: bytes, source: str) -> RawFile:
  """Converts StableHLO. A registry names the converter, which needs a package above this one."""
  module = _parse(hlo_pb2.HloModuleProto, registries.CONVERTERS.get("stablehlo")(data, source))
  if module is None or not _is_program(module):
    raise errors.DataError(f"{source} is MLIR without a program; expected a function `main` with "
                           f"operations of StableHLO; {file_types.HOW_TO_EXPORT}")
  return RawFile(source, STABLEHLO, (tuning_pb2.ModuleTuningData(module=module),))


def _empty(source: str) -> errors.DataError:
  return errors.DataError(f"{source} is empty; expected {_EXPECTED}; write or download it again")


def _refusal(data: bytes, text: str | None, source: str) -> errors.DataError:
  """Says what a file is that holds no program."""
  described = file_types.describe(data, text)
  if described is not None:
    what, remedy = described
    return errors.DataError(f"{source} is {what}; expected {_EXPECTED}; {remedy}")
  if text is not None and not text.strip():
    return _empty(source)
  if text is not None:
    shown = " ".join(text[:60].split())
    return errors.DataError(
        f"{source} is text, but neither HLO nor StableHLO: it starts with {shown!r}; expected "
        f"{_EXPECTED}; HLO text starts with `HloModule`, StableHLO with `module`")
  return errors.DataError(
      f"{source} is cut off or has an unknown format; expected {_EXPECTED}; compare its size with "
      "the original's, and download or dump it again")


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


def _as_snapshot(data: bytes, source: str) -> RawFile | None:
  # A snapshot has its program where TuningData has the first one; only a snapshot has a platform.
  snapshot = _parse(hlo_pb2.HloSnapshot, data)
  if snapshot is None or not snapshot.execution_platform:
    return None
  if not _is_program(snapshot.hlo.hlo_module):
    return None
  module = tuning_pb2.ModuleTuningData(module=snapshot.hlo.hlo_module)
  return RawFile(source, HLO_SNAPSHOT, (module,))


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
        f"{source}: module {escaping.quoted(module.name)} lacks its entry computation "
        f"{escaping.quoted(module.entry_computation_name)}; expected the whole program; the file "
        "is truncated or damaged: download or dump it again")
