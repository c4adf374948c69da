"""Rank every graph of a split and write a part of a submission.

  tpugraphs-rank predict --run_dir runs/first --split test
  tpugraphs-rank predict --run_dir runs/first --split valid --output valid_part.csv

Needs no runtimes, so it ranks the released test splits. Writes into the run directory

  predictions/SPLIT.npz    the scores of each graph's configurations; higher = predicted faster
  submission_part.csv      the ranking, one row per graph (predictions/SPLIT.csv for other splits
                           than test, or the file that --output names)

The results of a bundled run, such as bundled:tile_xla_cpu, go to the same places under the current
folder. `tpugraphs-rank submission merge` merges the parts of several collections.

A damaged graph is reported and skipped; the others are scored, and the exit status is 3. With
--strict, nothing is written then. --runner scores with Apache Beam, in several processes or on many
machines.
"""

import logging
from typing import TYPE_CHECKING

from absl import flags

from tpugraphs_rank import files
from tpugraphs_rank import work
from tpugraphs_rank.cli import app
from tpugraphs_rank.cli import engines
from tpugraphs_rank.cli import runs
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import registry

if TYPE_CHECKING:
  from tpugraphs_rank.training import prediction

_log = logging.getLogger("tpugraphs_rank.predict")


def predict(run_dir: files.PathLike, split: str, output: files.PathLike | None = None,
            data_root: str | None = None, strict: bool = False, partial: bool | None = None,
            prior: str = "analytic", skip: bool = False, engine: work.Engine = work.HERE
            ) -> "prediction.Prediction":
  """Scores every graph of a split of a run's collection.

  Args:
    run_dir: directory of a trained run, or the name of a bundled one.
    split: a split of its collection.
    output: the CSV file, instead of the one in the run directory.
    data_root: folder of the public collections, instead of the run's.
    strict: whether to refuse graphs that do not fit the run, instead of warning.
    partial: whether to score the graphs that exist if others are missing; None: as the run.
    prior: "analytic" or "none", see `load_run`.
    skip, engine: see `prediction.predict`.

  Raises:
    MissingDataError, DataError: as `load_collection`, or a graph is damaged.
    RunDirectoryError: the run directory is incomplete.
    TpuGraphsRankError: as `prediction.predict`.
  """
  from tpugraphs_rank.training import run_directory
  data = run_directory.RunDirectory(run_dir).read_config().data
  collection = collections.load_collection(
      data.collection, split, data_root or data.data_root, data.packed, data.packed_root,
      data.partial if partial is None else partial)
  # TensorFlow: only once there is something to score.
  from tpugraphs_rank.training import prediction
  from tpugraphs_rank.training import run as run_lib
  return prediction.predict(run_lib.load_run(run_dir, strict, prior), collection, output,
                            runs.results_folder(str(run_dir)), skip, engine)


def define_flags() -> None:
  """Defines the command's flags."""
  runs.define_run_flag()
  flags.DEFINE_enum("split", "test", [*registry.SPLITS, registry.WHOLE],
                    f"The split to rank; {registry.WHOLE}: a collection that is not divided.")
  flags.DEFINE_string("output", None, "The CSV file. By default one in the run directory.")
  flags.DEFINE_string("data_root", None, "Folder of the public collections. By default the run's.")
  runs.define_partial_flag()
  runs.define_strict_flag("graphs")
  runs.define_prior_flag()
  engines.define_flags("the folder of the scores")


def main(argv: list[str]) -> int:
  """Runs the command."""
  values = flags.FLAGS
  with engines.failures_of_errors():
    done = predict(values.run_dir, values.split, values.output, values.data_root, values.strict,
                   values.partial, values.prior, not values.strict, engines.engine())
  print(f"scores:  {done.scores}")
  print(f"ranking: {done.part} ({len(done.rows)} rows)")
  for failure in done.failed:
    _log.warning("skipped: %s", failure.error)
  engines.write_failures(done.failed, done.scores.parent)
  return app.SOME_SKIPPED if done.failed else 0
