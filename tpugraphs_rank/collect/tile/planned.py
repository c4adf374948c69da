"""The kernels that a plan names: those of the catalogue, and synthetic programs."""

from collections.abc import Mapping
import pathlib
from typing import Any

from tpugraphs_rank.collect.common import plans
from tpugraphs_rank.collect.tile import blocks
from tpugraphs_rank.collect.tile import geometry
from tpugraphs_rank.synthesis.programs import programs

Kernel = geometry.Kernel | blocks.SyntheticKernel


def kernel_of(entry: Mapping[str, Any]) -> Kernel:
  """The kernel of a plan's entry: one of the catalogue, or a synthetic program."""
  if "program" in entry:
    return blocks.SyntheticKernel(programs.RunnableProgram.from_json(entry["program"]))
  return geometry.parse_stem(entry["stem"])


def read_kernels(path: pathlib.Path) -> list[blocks.SyntheticKernel]:
  """The synthetic programs in a file as kernels; see `plans.read_synthetic`."""
  return [blocks.SyntheticKernel(program) for program in plans.read_synthetic(path)]
