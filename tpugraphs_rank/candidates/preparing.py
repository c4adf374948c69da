"""From the programs of a file to what a run can rank: kernels for tiles, with their candidates."""

from collections.abc import Callable, Iterable, Sequence
import dataclasses
from typing import NamedTuple

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank.candidates import candidate_set
from tpugraphs_rank.candidates import kernels
from tpugraphs_rank.candidates import programs
from tpugraphs_rank.candidates import supplied
from tpugraphs_rank.hlo import stages
from tpugraphs_rank.hlo import tuning_pb2

# What a tile run does with a file's programs.
ONE, AUTO, WHOLE = KERNELS = ("one", "auto", "whole")


class Part(NamedTuple):
  """A program to rank, or a kernel of one.

  Attributes:
    program: the program.
    kernel: the part of a larger program that it is; None: it is a whole program.
  """

  program: programs.HloProgram
  kernel: kernels.Kernel | None = None


class Skipped(NamedTuple):
  """A program or kernel that is not ranked.

  Attributes:
    name: of the program, or of the instruction that is a kernel.
    reason: why it is not ranked.
    is_kernel: whether it is a part of a program. Many parts of a program have nothing to tile.
  """

  name: str
  reason: str
  is_kernel: bool


@dataclasses.dataclass(frozen=True)
class Prepared:
  """What is ranked.

  Attributes:
    parts: the programs or kernels.
    sets: the candidates of each.
    skipped: the kernels without candidates.
  """

  parts: tuple[Part, ...]
  sets: tuple[candidate_set.Candidates, ...]
  skipped: tuple[Skipped, ...]


def parts_of(to_rank: Sequence[programs.HloProgram], kind: str, source: str, mode: str, run: str,
             run_stage: str) -> list[Part]:
  """The programs, or their kernels if a run ranks tiles.

  Programs whose tiles are supplied are not examined: then the supplier knows what they divide.

  Args:
    to_rank: the programs.
    kind: `tile` or `layout`, the kind that the run ranks.
    source: where candidates come from, see `programs.find`.
    mode: ONE refuses a program of several kernels, AUTO ranks each of its kernels, WHOLE takes
      every program as one kernel.
    run: name of the run in error messages.
    run_stage: HLO stage of the run's training graphs.

  Raises:
    CompatibilityError: a program is not one kernel, or has none.
  """
  parts: list[Part] = []
  for program in to_rank:
    has_tiles = source not in ("", programs.AUTO) or (
        not source and supplied.has_runs(program.data, kind))
    if kind != "tile" or mode == WHOLE or has_tiles:
      parts.append(Part(program))
      continue
    reason = kernels.why_not_one(program.data.module, program.source)
    if not reason:
      parts.append(Part(program))
    elif mode == ONE:
      raise errors.CompatibilityError(
          f"{program.source} is a whole program, not one kernel: it {reason}. The run {run} ranks "
          "tile sizes, and a tile divides the result of one kernel. --kernels=auto ranks each "
          "fusion, dot, reduction and so on as a kernel of its own; --kernels=whole tiles the "
          "program's result; a run on layouts, such as bundled:layout_xla_cpu_mixed, ranks whole "
          "programs")
    else:
      parts += _kernels_of(program, run_stage)
  return parts


def _kernels_of(program: programs.HloProgram, run_stage: str) -> list[Part]:
  divided = kernels.split(program.data.module, run_stage, program.source)
  if not divided.kernels:
    raise errors.CompatibilityError(
        f"{program.source} has no kernel to rank: no fusion, dot, convolution, reduction, sort, "
        f"gather, scatter or transpose ({divided.opaque} library calls, whose computation the file "
        f"does not contain, and {divided.fused_later} elementwise instructions); dump the program "
        f"{stages.TEXT[stages.AFTER]}, or choose a run on layouts")
  return [Part(programs.HloProgram(
      kernel.name, f"{program.source}: {escaping.quoted(kernel.name)}",
      tuning_pb2.ModuleTuningData(module=kernel.module)), kernel) for kernel in divided.kernels]


def with_candidates(parts: Sequence[Part],
                    find: Callable[[programs.HloProgram], candidate_set.Candidates],
                    shown: Callable[[Iterable[Part]], Iterable[Part]] = iter,
                    strict: bool = False) -> Prepared:
  """Finds the candidates of each part. One of several that has none is skipped.

  Args:
    parts: the parts.
    find: finds the candidates of a program.
    shown: wraps the parts to show progress.
    strict: whether a whole program without candidates is an error even if there are others.

  Raises:
    DataError: no part has candidates; or, if `strict`, a whole program has none.
    TpuGraphsRankError: as `programs.find`.
  """
  kept: list[Part] = []
  sets: list[candidate_set.Candidates] = []
  skipped: list[Skipped] = []
  for part in shown(parts):
    try:
      candidates = find(part.program)
    except errors.DataError as error:
      if part.kernel is None and (strict or len(parts) == 1):
        raise
      name = part.program.name if part.kernel is None else part.kernel.name
      skipped.append(Skipped(name, str(error), part.kernel is not None))
      continue
    kept.append(part)
    sets.append(candidates)
  if not kept:
    raise errors.DataError(
        f"none of {len(skipped)} programs can be ranked; the first: {skipped[0].reason}")
  return Prepared(tuple(kept), tuple(sets), tuple(skipped))
