"""Measure the configurations in a raw file.

  tpugraphs-rank collect remeasure --input matmul.ranked.pb --output build/measured

Reads a raw file whose runs name configurations, measured or not, as `tpugraphs-rank rank` writes
it, and writes OUTPUT/pass1.pb and OUTPUT/pass2.pb with the runtimes of two passes. The default
configuration is always measured too. Layouts are measured for any program, from its HLO; tiles for
the kernels of the collector's catalogue, which the name of the module identifies.
"""

import pathlib

from absl import flags

from tpugraphs_rank import collect


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("input", None, "Raw file with the configurations.", required=True)
  flags.DEFINE_string("output", None, "Folder of the results.", required=True)


def main(argv: list[str]) -> None:
  """Runs the command."""
  del argv
  for path in collect.measure_ranked(pathlib.Path(flags.FLAGS.input),
                                     pathlib.Path(flags.FLAGS.output)):
    print(f"written: {path}")
