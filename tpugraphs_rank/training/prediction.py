"""Scores of every graph of a split, written to a file and as rows of a submission."""

import dataclasses
import pathlib
import zipfile

import numpy as np
import tqdm

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import submission
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import npz
from tpugraphs_rank.training import run as run_lib


@dataclasses.dataclass(frozen=True)
class Prediction:
  """The files of a prediction.

  Attributes:
    scores: `.npz` file with the scores (c,) float32 of each graph, under the graph's name.
    part: CSV file with one row per graph, in the format of a submission.
    rows: its rows, by file stem.
  """

  scores: pathlib.Path
  part: pathlib.Path
  rows: tuple[submission.Row, ...]

  def __repr__(self) -> str:
    return f"<Prediction of {len(self.rows)} graphs: {self.scores}>"

  def load(self) -> dict[str, np.ndarray]:
    """The scores (c,) float32 of each graph, by its name."""
    return npz.read_arrays(self.scores)


def predict(run: run_lib.Run, split: collections.Split, output: files.PathLike | None = None,
            folder: files.PathLike | None = None) -> Prediction:
  """Scores all configurations of the graphs of a split, and writes the scores and the ranking.

  Graphs are read as they are scored, so a split may be larger than memory. They need no runtimes.
  The files appear once all graphs are scored:

      <run directory>/predictions/<split>.npz   scores
      <run directory>/submission_part.csv       the rows of the test split
      <run directory>/predictions/<split>.csv   the rows of another split

  Args:
    run: the run.
    split: the graphs.
    output: the CSV file. Default: the one in `folder`.
    folder: the folder of both files. Default: the run directory, or the current folder for a
      bundled run.

  Raises:
    CompatibilityError: the run cannot score a graph; or, if it is strict, a graph does not fit it.
    DataError: a graph is damaged, or its name is not valid in a submission.
    OutputError: a file cannot be written.
  """
  collection = split.collection
  run.check_collection(collection)
  order = sorted(range(len(split)), key=lambda index: split.paths[index].stem)
  stems = [split.paths[index].stem for index in order]
  # Checked first, because scoring takes a while.
  for stem, following in zip(stems, [*stems[1:], None]):
    submission.graph_id(collection.name, stem)
    if stem == following:
      raise errors.DataError(f"two files of {collection.name} {split.split} are named {stem}.npz, "
                             "so their rows would have the same ID; rename one")
  folder = run.directory.output_folder if folder is None else pathlib.Path(folder)
  scores_path = folder / "predictions" / f"{split.split}.npz"
  usual = (folder / "submission_part.csv" if split.split == "test"
           else scores_path.with_suffix(".csv"))
  part = pathlib.Path(output) if output is not None else usual
  rows: list[submission.Row] = []
  with files.atomic_write(scores_path) as file, zipfile.ZipFile(file, "w") as archive:
    # No progress bar if the output is no terminal: it would make log files unreadable.
    with tqdm.tqdm(total=len(order), desc="scoring", unit="graph", disable=None) as bar:
      for graph, scores in run.score_each(split[index] for index in order):
        # The format of np.savez, which would need all arrays in memory and refuses the name "file".
        with archive.open(f"{graph.name}.npy", "w", force_zip64=True) as member:
          np.lib.format.write_array(member, scores, allow_pickle=False)
        rows.append(submission.row_from_scores(
            collection.name, collection.kind, graph.name, scores))
        bar.update()
    submission.write(part, rows)
  return Prediction(scores_path, part, tuple(rows))
