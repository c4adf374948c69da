"""Scores and ranks the configurations of every graph of a split, as a part of a submission.

  python -m tpugraphs_rank.cli.predict --run_dir runs/first --split test
  python -m tpugraphs_rank.cli.predict --run_dir runs/first --split valid --output valid_part.csv

Needs no runtimes, so the released test splits can be ranked. Writes into the run directory

  predictions/<split>.npz  scores of each graph's configurations, higher = predicted faster
  submission_part.csv      the ranking, one row a graph (of another split than test:
                           predictions/<split>.csv; or where --output says)

`python -m tpugraphs_rank.cli.submission merge` joins the parts of several collections.
"""

from typing import TYPE_CHECKING

from absl import flags

from tpugraphs_rank import files
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import registry

if TYPE_CHECKING:
  from tpugraphs_rank.training import prediction


def predict(run_dir: files.PathLike, split: str, output: files.PathLike | None = None,
            data_root: str | None = None, strict: bool = False) -> "prediction.Prediction":
  """Scores every graph of a split of a run's collection.

  Args:
    run_dir: of a trained run.
    split: a split of its collection.
    output: the CSV file, instead of the one in the run directory.
    data_root: folder of the public collections, instead of the run's.
    strict: refuse graphs that the run does not fit, instead of warning.

  Raises:
    MissingDataError, DataError: as `load_collection`, or a graph is damaged.
    RunDirectoryError: the run directory is incomplete.
    TpuGraphsRankError: as `prediction.predict`.
  """
  from tpugraphs_rank.training import run_directory
  data = run_directory.RunDirectory(run_dir).read_config().data
  found = collections.load_collection(
      data.collection, split, data_root or data.data_root, data.packed, data.packed_root)
  # TensorFlow: not before it is known that there is something to score.
  from tpugraphs_rank.training import prediction
  from tpugraphs_rank.training import run as run_lib
  return prediction.predict(run_lib.load_run(run_dir, strict), found, output)


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("run_dir", None, "Folder of the run.", required=True)
  flags.DEFINE_enum("split", "test", [*registry.SPLITS, registry.WHOLE],
                    "The split that is scored; all: of a collection that is not divided.")
  flags.DEFINE_string("output", None, "The CSV file; otherwise one in the run directory.")
  flags.DEFINE_string("data_root", None, "Folder of the public collections, instead of the run's.")
  flags.DEFINE_bool("strict", False, "Refuse graphs that the run does not fit (another target, "
                    "opcodes never seen), instead of warning.")


def main(argv: list[str]) -> None:
  """Runs the command."""
  values = flags.FLAGS
  done = predict(values.run_dir, values.split, values.output, values.data_root, values.strict)
  print(f"scores:  {done.scores}")
  print(f"ranking: {done.part} ({len(done.rows)} rows)")
