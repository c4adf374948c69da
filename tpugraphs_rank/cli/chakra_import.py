"""Turn Chakra traces into graphs for LayerDAG.

  tpugraphs-rank chakra import --input traces/ --output runs/traces.npz
  tpugraphs-rank chakra import --input job.0.et --input job.1.et --output runs/job.npz --reduce

A trace is a file of MLCommons' Chakra format (.et, also compressed with gzip) or its JSON form.
Every trace becomes one graph, whose edges are the data dependencies; --control adds the control
dependencies. References of a node to itself, to missing nodes and repeated ones are dropped and
counted. A cycle is an error that names the nodes. --reduce drops the dependencies that others
imply.

The nodes get categories: type, operator, device, duration, operations, bytes, collective and group.
Numbers fall into buckets on a logarithmic scale; the file stores the number of each bucket, so that
`tpugraphs-rank chakra export` can write traces again. --per_octave 0 keeps every number.

A damaged trace is reported and skipped. The exit status is 3 if any was skipped, and 1 if none is
left. --strict stops at the first damaged one.
"""

import logging

from absl import flags

from tpugraphs_rank import commands
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import tables
from tpugraphs_rank.chakra import buckets
from tpugraphs_rank.chakra import graphs
from tpugraphs_rank.cli import app
from tpugraphs_rank.synthesis.dags import dags

_log = logging.getLogger("tpugraphs_rank.chakra")


def define_flags() -> None:
  """Defines the command's flags."""
  default = graphs.Settings()
  flags.DEFINE_multi_string("input", None, "A trace, or a folder with traces directly in it. May "
                            "be repeated.",
                            required=True)
  flags.DEFINE_string("output", None, "The .npz file to write.", required=True)
  flags.DEFINE_list("attributes", list(default.attributes), "Attributes of a node, from: "
                    f"{', '.join(graphs.ATTRIBUTES)}.")
  flags.DEFINE_integer("per_octave", default.per_octave, "Buckets between a number and its double. "
                       "0: each number is its own category.", lower_bound=0,
                       upper_bound=buckets.MAX_PER_OCTAVE)
  flags.DEFINE_integer("max_operators", default.max_operators, "Operator classes to keep, the most "
                       f"frequent ones; the others become {graphs.OTHER!r}. 0: all.", lower_bound=0)
  flags.DEFINE_bool("control", default.control, "Also take the control dependencies.")
  flags.DEFINE_bool("reduce", default.reduced, "Drop dependencies that others imply (transitive "
                    "reduction).")
  flags.DEFINE_bool("strict", False, "Stop at the first damaged trace, instead of skipping it.")


def main(argv: list[str]) -> int:
  """Runs the command."""
  values = flags.FLAGS
  settings = graphs.Settings(tuple(values.attributes), values.per_octave, values.max_operators,
                             values.control, values.reduce)
  files.check_output(values.output)
  paths = graphs.trace_files(values.input)
  read, skipped = [], []
  for path in paths:
    try:
      graph = graphs.read(path, settings)
    except errors.DataError as error:
      if values.strict or len(paths) == 1:
        raise
      skipped.append(str(error))
      _log.warning("skipped: %s", error)
      continue
    read.append(graph)
    print(graph.report)
  if not read:
    raise errors.DataError(
        f"no graph was written, because all traces were skipped; the first: {skipped[0]}")
  several = graphs.to_dags(read, settings, {"command": commands.running()})
  dags.save(values.output, several)
  least, most = int(several.sizes.min()), int(several.sizes.max())
  print(f"{tables.counted(len(several), 'graph')} of " + (f"{least:,} to " if least < most else "")
        + f"{tables.counted(most, 'node')}, up to "
        f"{tables.counted(int(several.depths.max()), 'level')}: {values.output}")
  print("categories: " + ", ".join(
      f"{len(words)} {name}" for name, words in zip(several.x_names, several.vocabularies)))
  if skipped:
    _log.warning("skipped traces: %d of %d (exit status %d)", len(skipped), len(paths),
                 app.SOME_SKIPPED)
    return app.SOME_SKIPPED
  return 0
