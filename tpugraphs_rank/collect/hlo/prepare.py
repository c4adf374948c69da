"""Prepares the folder in which a user's program is measured; needs no JAX."""

import dataclasses
import hashlib
import pathlib

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import files
from tpugraphs_rank import folder_locks
from tpugraphs_rank import json_shapes
from tpugraphs_rank import partials
from tpugraphs_rank.candidates import candidate_set
from tpugraphs_rank.candidates import layouts
from tpugraphs_rank.candidates import programs
from tpugraphs_rank.candidates import supplied
from tpugraphs_rank.candidates import tile_spaces
from tpugraphs_rank.collect.common import plans
from tpugraphs_rank.collect.common import protocol
from tpugraphs_rank.collect.hlo import folder as folder_lib
from tpugraphs_rank.collect.hlo import wire
from tpugraphs_rank.hlo import compression
from tpugraphs_rank.hlo import examples
from tpugraphs_rank.hlo import file_types
from tpugraphs_rank.hlo import graph
from tpugraphs_rank.hlo import reading
from tpugraphs_rank.hlo import tuning_pb2

_KIND = "hlo"
_FIXED = ("kind", "program", "seed", "protocol", "xla_flags")
_RANKED = ".ranked.json"
_METADATA = 7  # HloInstructionProto.metadata
# Fields of HloModuleProto: id, which counts the programs of a process, and stack_frame_index.
_MODULE_POSITIONS = (5, 17)


@dataclasses.dataclass(frozen=True)
class Settings:
  """How a program is measured.

  Attributes:
    seed: of random configurations, of the arguments, and of the order.
    budget_ms: measuring time of a configuration in one pass.
    program_limit: seconds after which compiling, or a pass, is abandoned.
    xla_flags: flags of XLA, as in the variable XLA_FLAGS; by default those of the collections.
  """

  seed: int = 0
  budget_ms: int = protocol.LAYOUT.budget_ns // 1_000_000
  program_limit: float = 1800.0
  xla_flags: str = protocol.LAYOUT_ENVIRONMENT["XLA_FLAGS"]

  def __post_init__(self) -> None:
    if self.budget_ms < 1 or not self.program_limit > 0 or self.seed < 0:
      raise errors.ConfigError(
          f"--budget_ms={self.budget_ms} --program_limit={self.program_limit} "
          f"--seed={self.seed}: expected positive numbers, and a seed of 0 or more")


def read(path: files.PathLike, module: str | None = None
         ) -> tuple[programs.HloProgram, str]:
  """The program of a file, and its text if the file holds HLO text.

  Raises:
    TpuGraphsRankError: as `programs.read`.
    ConfigError: the file holds several programs, and `module` does not choose one.
  """
  found = programs.read(path, module)
  if len(found) > 1:
    raise errors.ConfigError(
        f"{path} has {len(found)} programs; expected one: choose it with --module NAME")
  content = compression.unpack(pathlib.Path(examples.path_of(path)).read_bytes(), str(path))
  text = file_types.decode(content)
  return found[0], text if text is not None and file_types.is_hlo(text) else ""


def with_sites(program: programs.HloProgram) -> tuning_pb2.ModuleTuningData:
  """The program without runs; it names the instructions for which layouts can be requested.

  Raises:
    DataError: there is none.
  """
  data = tuning_pb2.ModuleTuningData(
      module=program.data.module, config_index_to_node=program.data.config_index_to_node)
  sites = folder_lib.sites_of(data, program.source)
  del data.config_index_to_node[:]
  data.config_index_to_node.extend(site.node for site in sites)
  return data


def random_configurations(program: programs.HloProgram, count: int, seed: int
                          ) -> candidate_set.Candidates:
  """Configurations of a program, half of them near the default, which comes first."""
  return layouts.draw_layouts(
      with_sites(program), tile_spaces.ELEMENTS, count, seed, program.source)


def supplied_configurations(program: programs.HloProgram, path: files.PathLike
                            ) -> candidate_set.Candidates:
  """The configurations in a file: raw data as `rank` writes them, or `.npz`.

  Raises:
    MissingDataError: there is no such file.
    DataError: it is damaged, or belongs to another program.
  """
  name = str(path)
  if name.endswith(".npz"):
    return supplied.from_npz(path, program.data, "layout")
  if name.endswith(_RANKED):  # The file next to it holds the configurations.
    path = name.removesuffix(_RANKED) + ".ranked.pb"
  chosen = [other for other in reading.read_raw(path).modules if other.HasField("module")]
  if len(chosen) != 1:
    raise errors.DataError(f"{path} has {len(chosen)} programs; expected the configurations of one")
  ours = graph.node_opcodes(program.data.module)
  if not (ours.shape == (theirs := graph.node_opcodes(chosen[0].module)).shape
          and (ours == theirs).all()):
    raise errors.DataError(
        f"{path} has configurations of another program ({len(theirs)} instructions; "
        f"{program.source} has {len(ours)}); supply configurations of this one")
  return supplied.from_runs(chosen[0], "layout", str(path))


def prepare(output: pathlib.Path, program: programs.HloProgram, text: str,
            candidates: candidate_set.Candidates, settings: Settings) -> None:
  """Writes the folder: the program, its configurations, and the settings.

  Raises:
    DataError: a configuration does not fit the program.
    RunDirectoryError: the folder belongs to another program, or was started with other settings.
  """
  data = tuning_pb2.ModuleTuningData(
      module=program.data.module,
      config_index_to_node=candidates.arrays["node_config_ids"].tolist())
  for position in range(candidates.count):
    data.runs.append(candidates.profile(position))
  prepare_data(output, data, text, program.source, settings)


def without_positions(data: tuning_pb2.ModuleTuningData) -> tuning_pb2.ModuleTuningData:
  """A program without positions in its source, which change with every edit of the source."""
  result = tuning_pb2.ModuleTuningData()
  result.CopyFrom(data)
  module = result.module
  content = wire.without(module.SerializeToString(), _MODULE_POSITIONS)
  module.Clear()
  module.MergeFromString(content)
  for computation in module.computations:
    for instruction in computation.instructions:
      content = wire.without(instruction.SerializeToString(), (_METADATA,))
      instruction.Clear()
      instruction.MergeFromString(content)
  return result


def prepare_data(output: pathlib.Path, data: tuning_pb2.ModuleTuningData, text: str, source: str,
                 settings: Settings) -> None:
  """Writes the folder of a program with any number of runs; see `prepare`.

  Raises:
    DataError: a configuration does not fit the program, or the folder's plan is damaged.
    RunDirectoryError: the folder has other files, belongs to another program, or was started with
      other settings. Nothing is written then.
  """
  folder_lib.configurations_of(data, folder_lib.sites_of(data, source), source)
  measuring = dataclasses.replace(protocol.LAYOUT, budget_ns=settings.budget_ms * 1_000_000)
  content = data.SerializeToString(deterministic=True)
  identity = without_positions(data).SerializeToString(deterministic=True)
  if text:
    identity += protocol.normalised_hlo(text).encode()
  digest = hashlib.sha256(identity).hexdigest()
  _check_owner(output, source, digest)
  plans.store(output, {
      "kind": _KIND, "source": source, "seed": settings.seed, "program": digest,
      "protocol": dataclasses.asdict(measuring), "program_limit": settings.program_limit,
      "xla_flags": settings.xla_flags,
      "programs": [{"stem": folder_lib.STEM}]}, _FIXED, "programs")
  if not (output / folder_lib.PROGRAM).exists() or (
      (output / folder_lib.PROGRAM).read_bytes() != content):
    folder_lib.store_program(output, data, text)


def files_in(folder: pathlib.Path) -> list[pathlib.Path]:
  """What is in a folder, except locks and temporary files; nothing if there is no folder."""
  if not folder.is_dir():
    return []
  return sorted(entry for entry in folder.iterdir()
                if entry.name != folder_locks.NAME and entry.suffix != partials.SUFFIX)


def _check_owner(output: pathlib.Path, source: str, digest: str) -> None:
  """Refuses a folder of anything else than this program.

  Raises:
    RunDirectoryError: it has other files, or belongs to another program.
    DataError: its plan is damaged.
  """
  remedy = "choose another --output"
  path = output / plans.PLAN
  if not path.exists():
    found = files_in(output)
    if found:
      raise errors.RunDirectoryError(
          f"{output} has no {plans.PLAN}, but other files such as "
          f"{escaping.quoted(found[0].name)}; expected a new or an empty folder, or that of an "
          f"earlier call; {remedy}")
    return
  stored = json_shapes.read(path, dict, f"restore it, or {remedy}")
  if stored.get("kind") != _KIND:
    raise errors.RunDirectoryError(
        f"{output} was written by another command; expected a new or an empty folder, or that of "
        f"an earlier call; {remedy}")
  json_shapes.check(stored, {"source": str, "program": str}, str(path), f"restore it, or {remedy}")
  if stored["program"] != digest:
    theirs = escaping.printable(stored["source"])
    raise errors.RunDirectoryError(
        f"{output} belongs to an earlier version of {source}; the program has changed; {remedy}"
        if stored["source"] == source else
        f"{output} belongs to another program, {theirs}; this one is {source}; {remedy}")
