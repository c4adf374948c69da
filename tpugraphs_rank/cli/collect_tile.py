"""Measure kernels under many tile sizes; make a collection.

  tpugraphs-rank collect tile --output build/tile
  tpugraphs-rank collect tile --output build/trial --limit 6
  tpugraphs-rank collect tile --output build/mine --synthetic programs.json

Compiles each kernel of the catalogue (or each synthetic program) with XLA under many tile sizes,
times all of them in independent passes, featurizes the kernels, and keeps those whose passes agree.
OUTPUT/collection/collection.json is an ordinary collection: pass it to `train --collection`.

The collector runs in its own environment with JAX, which is created on first use. The whole
catalogue takes half an hour on two cores. After an interruption, the same command resumes.
"""

from absl import flags

from tpugraphs_rank.cli import collect

_NAME = "tile:xla_cpu"


def define_flags() -> None:
  """Defines the command's flags."""
  collect.define_flags_of("tile", _NAME)


locks = collect.locks


def main(argv: list[str]) -> None:
  """Runs the command."""
  del argv
  collect.run("tile", _NAME, flags.FLAGS)
