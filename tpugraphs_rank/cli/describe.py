"""Describe a collection and check its files.

  tpugraphs-rank describe --collection tile:xla
  tpugraphs-rank describe --collection graphs/collection.json --splits train,valid
  tpugraphs-rank describe --collection layout:nlp:random --output described.json
  tpugraphs-rank describe --collection layout:xla:default --partial

Use it for a first look at a collection and to check a download. For each split it prints the number
of files, damaged files with their errors, sizes, runtimes, repeated configurations, dtypes,
opcodes, structural twins in other splits, and the disk space and memory needed. --output also
writes all numbers as JSON. The command reads every graph, one at a time; --runner reads them with
Apache Beam, in several processes or on many machines.

The exit status is 1 if a file is damaged or lacks the runtimes that its split should have, or if a
split has the wrong number of graphs. With --partial, missing graphs are listed and are no problem.
"""

from absl import flags

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import run_config
from tpugraphs_rank.cli import engines
from tpugraphs_rank.data import describe
from tpugraphs_rank.data import describe_tables


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("collection", None, "Name of a collection, or path of its JSON descriptor.",
                      required=True)
  flags.DEFINE_list("splits", None, "Splits, comma-separated. By default all.")
  flags.DEFINE_string("data_root", None, "Folder of the public collections. By default "
                      "TPUGRAPHS_RANK_DATA, then the data folder of this platform.")
  flags.DEFINE_bool("partial", False, "Describe the graphs that exist, and list what is missing.")
  flags.DEFINE_string("output", None, "JSON file for all numbers.")
  flags.DEFINE_integer("max_configs", run_config.BatchConfig().max_configs, "List length in "
                       "training: the command counts graphs with fewer configurations.",
                       lower_bound=1)
  engines.define_flags("", failures=False)


def main(argv: list[str]) -> None:
  """Runs the command."""
  values = flags.FLAGS
  description = describe.describe(values.collection, values.splits, values.data_root,
                                  values.max_configs, values.partial, engines.engine())
  print(describe_tables.text(description))
  if values.output:
    files.write_json(values.output, description.summary())
    print(f"numbers: {values.output}")
  if description.problems:
    texts = [problem.text for problem in description.problems]
    raise errors.DataError(f"{description.collection.name}: "
                           f"{'; '.join(texts + description.remedies(values.data_root))}")
