"""A run's scores of every graph of a split, kept in files and as rows of a submission."""

import dataclasses
import pathlib
import zipfile

import numpy as np
import tqdm

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import submission
from tpugraphs_rank.data import collections
from tpugraphs_rank.training import run as run_lib


@dataclasses.dataclass(frozen=True)
class Prediction:
  """What was predicted, and where it lies.

  Attributes:
    scores: `.npz` file with the scores (c,) float32 of each graph, under the graph's name.
    part: CSV file with one row a graph, in the form of a submission.
    rows: its rows, by file stem.
  """

  scores: pathlib.Path
  part: pathlib.Path
  rows: tuple[submission.Row, ...]


def predict(run: run_lib.Run, split: collections.Split, output: files.PathLike | None = None,
            folder: files.PathLike | None = None) -> Prediction:
  """Scores the graphs of a split, all of their configurations, and writes scores and ranking.

  Graphs are read as they are scored, so a split may be larger than memory. They need no runtimes.
  Both files appear once all graphs are scored. Writes

      <run directory>/predictions/<split>.npz   scores
      <run directory>/submission_part.csv       the rows of the test split
      <run directory>/predictions/<split>.csv   the rows of another split

  Args:
    run: the run.
    split: the graphs.
    output: the CSV file, instead of the one in the run directory.
    folder: where both files go, instead of the run directory.

  Raises:
    CompatibilityError: the run cannot score a graph or, where it is strict, does not fit one.
    DataError: a graph is damaged, or its name cannot stand in a submission.
    OutputError: a file cannot be written.
  """
  collection = split.collection
  run.check_collection(collection)
  order = sorted(range(len(split)), key=lambda index: split.paths[index].stem)
  stems = [split.paths[index].stem for index in order]
  # Looked at first: scoring takes a while.
  for stem, following in zip(stems, [*stems[1:], None]):
    submission.graph_id(collection.name, stem)
    if stem == following:
      raise errors.DataError(f"two files of {collection.name} {split.split} are named {stem}.npz, "
                             "so one row would stand for both; rename one")
  folder = run.directory.path if folder is None else pathlib.Path(folder)
  scores_path = folder / "predictions" / f"{split.split}.npz"
  usual = (folder / "submission_part.csv" if split.split == "test"
           else scores_path.with_suffix(".csv"))
  part = pathlib.Path(output) if output is not None else usual
  rows: list[submission.Row] = []
  with files.atomic_write(scores_path) as file, zipfile.ZipFile(file, "w") as archive:
    # Silent when nobody watches: a progress bar makes log files unreadable.
    with tqdm.tqdm(total=len(order), desc="scoring", unit="graph", disable=None) as bar:
      for graph, scores in run.score_each(split[index] for index in order):
        # As np.savez does, which would hold all of them, and cannot store one named "file".
        with archive.open(f"{graph.name}.npy", "w", force_zip64=True) as member:
          np.lib.format.write_array(member, scores, allow_pickle=False)
        rows.append(submission.row_from_scores(
            collection.name, collection.kind, graph.name, scores))
        bar.update()
    submission.write(part, rows)
  return Prediction(scores_path, part, tuple(rows))
