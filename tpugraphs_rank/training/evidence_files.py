"""A run's `calibration.json`: how good its predictions were on validation.

Training writes it with each checkpoint that it keeps. `evaluate` writes it for runs of older
versions.
"""

from collections.abc import Iterable, Sequence
import dataclasses

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.data import batches
from tpugraphs_rank.data import splits
from tpugraphs_rank.evaluation import baselines
from tpugraphs_rank.hlo import operations
from tpugraphs_rank.metrics import evidence as evidence_lib
from tpugraphs_rank.training import run_directory

SPLIT = "valid"


def read(directory: run_directory.RunDirectory) -> evidence_lib.Evidence | None:
  """What a run stores; None if an older version trained it.

  Raises:
    RunDirectoryError: the file is damaged.
  """
  path = directory / evidence_lib.FILE
  if not path.exists():
    return None
  try:
    return evidence_lib.Evidence.from_json(files.read_json(path))
  except errors.DataError as error:
    raise errors.RunDirectoryError(
        f"{path} is damaged ({error}); delete it: evaluation writes it again") from error


def write(directory: run_directory.RunDirectory, evidence: evidence_lib.Evidence) -> None:
  """Stores it.

  Raises:
    OutputError: it cannot be written.
  """
  files.write_json(directory / evidence_lib.FILE, evidence.to_json())


def of_prepared(prepared: Sequence[batches.PreparedGraph], scores: Sequence[np.ndarray],
                split: str = SPLIT) -> evidence_lib.Evidence:
  """Gathers it from scores of prepared graphs, each (c',) of its usable configurations."""
  return evidence_lib.gather((
      _scored(splits.ProgramView(member.graph, member.choice), member.runtimes, values)
      for member, values in zip(prepared, scores)), split)


def with_defaults(programs: Iterable[splits.ProgramView]) -> list[splits.ProgramView]:
  """The same programs, each with its default among its configurations if it is known.

  A split of a known program's configurations has the default on one side only.
  """
  result = []
  for program in programs:
    default = None
    if baselines.default_place(program) is None:
      default = baselines.default_index(program.graph)
    if default is not None:
      program = dataclasses.replace(program, choice=np.append(program.indices, default))
    result.append(program)
  return result


def scored(programs: Sequence[splits.ProgramView], scores: Sequence[np.ndarray]
           ) -> list[evidence_lib.Scored]:
  """Programs with measurements and their scores, each (c',) of its usable configurations."""
  return [_scored(program, program.runtimes, values)
          for program, values in zip(programs, scores)]


def _scored(program: splits.ProgramView, runtimes: np.ndarray, scores: np.ndarray
            ) -> evidence_lib.Scored:
  return evidence_lib.Scored(
      operations.main_operation(np.unique(program.graph.node_opcode).tolist()),
      runtimes[program.indices], scores, baselines.default_place(program))
