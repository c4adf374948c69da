"""Measure programs under many layouts; make a collection.

  tpugraphs-rank collect layout --output build/layout --cores 0,1
  tpugraphs-rank collect layout --output build/trial --limit 3
  tpugraphs-rank collect layout --output build/mine --synthetic programs.json

Compiles each program of the catalogue (or each synthetic program) with XLA under many combinations
of requested layouts, times all of them in independent passes, featurizes the programs, and keeps
those whose passes agree. OUTPUT/collection/collection.json is an ordinary collection: pass it to
`train --collection`.

The collector runs in its own environment with JAX, which is created on first use. The whole
catalogue takes about five hours on one core. --time_budget limits the time: programs are ordered so
that the first ones include all families. The same command resumes.
"""

from absl import flags

from tpugraphs_rank.cli import collect

_NAME = "layout:xla_cpu:mixed"


def define_flags() -> None:
  """Defines the command's flags."""
  collect.define_flags_of("layout", _NAME)


locks = collect.locks


def main(argv: list[str]) -> None:
  """Runs the command."""
  del argv
  collect.run("layout", _NAME, flags.FLAGS)
