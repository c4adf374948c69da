"""Describes a collection: a first look at it, and the check after a download.

  python -m tpugraphs_rank.cli.describe --collection tile:xla
  python -m tpugraphs_rank.cli.describe --collection graphs/collection.json --splits train,valid
  python -m tpugraphs_rank.cli.describe --collection layout:nlp:random --output described.json

Prints for each split the files that are there and those that are damaged (each with its error),
sizes, runtimes, repeated configurations, dtypes, opcodes, twins across splits, and the disk and
memory it takes; `--output` is a file for all numbers as JSON. Every graph is read, one at a time.

The exit status is 1 where a file is damaged or lacks the runtimes that its split should have, or a
split has not as many graphs as it should.
"""

from absl import flags

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import run_config
from tpugraphs_rank.data import describe
from tpugraphs_rank.data import describe_tables


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("collection", None, "Name of a collection, or path of its JSON descriptor.",
                      required=True)
  flags.DEFINE_list("splits", None, "Splits, comma-separated; otherwise all.")
  flags.DEFINE_string("data_root", None, "Folder of the public collections; otherwise "
                      "TPUGRAPHS_RANK_DATA, then the platform's.")
  flags.DEFINE_string("output", None, "JSON file for all the numbers.")
  flags.DEFINE_integer("max_configs", run_config.BatchConfig().max_configs, "Configurations a list "
                       "in training: graphs with fewer are counted.", lower_bound=1)


def main(argv: list[str]) -> None:
  """Runs the command."""
  values = flags.FLAGS
  found = describe.describe(values.collection, values.splits, values.data_root, values.max_configs)
  print(describe_tables.text(found))
  if values.output:
    files.write_json(values.output, found.summary())
    print(f"numbers: {values.output}")
  if found.problems:
    what = [problem.text for problem in found.problems]
    raise errors.DataError(
        f"{found.collection.name}: {'; '.join(what + found.mends(values.data_root))}")
