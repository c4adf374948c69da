"""Scores of every graph of a split, written to a file and as rows of a submission."""

from collections.abc import Iterator, Sequence
import dataclasses
import functools
import logging
import pathlib
import pickle
import tempfile
from typing import NamedTuple

import numpy as np
import tqdm

from tpugraphs_rank import array_files
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import submission
from tpugraphs_rank import work
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import headers
from tpugraphs_rank.data import npz
from tpugraphs_rank.training import run as run_lib
from tpugraphs_rank.training import tile_prior

_logger = logging.getLogger(__name__)

# Limits of the graphs that are scored together: number, and bytes of their arrays. Larger graphs
# are scored alone, so that several processes have the same amount of work.
_GROUP_GRAPHS = 16
_GROUP_BYTES = 2 * 2**20
# Errors that concern one graph.
_OF_ONE_GRAPH = (errors.DataError, errors.MissingDataError, errors.CompatibilityError)


@dataclasses.dataclass(frozen=True)
class Prediction:
  """The files of a prediction.

  Attributes:
    scores: `.npz` file with the scores (c,) float32 of each graph, under the graph's name.
    part: CSV file with one row per graph, in the format of a submission.
    rows: its rows, by file stem.
    failed: the graphs that could not be scored. They have neither scores nor a row.
  """

  scores: pathlib.Path
  part: pathlib.Path
  rows: tuple[submission.Row, ...]
  failed: tuple[work.Failure, ...] = ()

  def __repr__(self) -> str:
    return f"<Prediction of {len(self.rows)} graphs: {self.scores}>"

  def load(self) -> dict[str, np.ndarray]:
    """The scores (c,) float32 of each graph, by its name."""
    return npz.read_arrays(self.scores)


def predict(run: run_lib.Run, split: collections.Split, output: files.PathLike | None = None,
            folder: files.PathLike | None = None, skip: bool = False,
            engine: work.Engine = work.HERE) -> Prediction:
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
    skip: whether graphs that are damaged, or that the run cannot score, are skipped. Otherwise
      nothing is written if there is one.
    engine: where the graphs are scored.

  Raises:
    CompatibilityError: the run cannot score a graph; or, if it is strict, a graph does not fit it.
    DataError: a graph is damaged, or its name is not valid in a submission; with `skip`, only if
      all graphs are.
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
  scores_path = files.without_links(folder, "predictions") / f"{split.split}.npz"
  usual = (folder / "submission_part.csv" if split.split == "test"
           else scores_path.with_suffix(".csv"))
  part = pathlib.Path(output) if output is not None else usual
  rows: list[submission.Row] = []
  unseen: list[run_lib.Unseen] = []
  failed: list[work.Failure] = []
  with (files.atomic_write(scores_path) as file,
        array_files.writing(file, compressed=False) as add):
    # No progress bar if the output is no terminal: it would make log files unreadable.
    with tqdm.tqdm(total=len(order), desc="scoring", unit="graph", disable=None) as bar:
      for path, outcome in _outcomes(run, split, order, engine):
        bar.update()
        if outcome.error is not None and skip:
          failed.append(work.Failure(str(path), outcome.error))
          continue
        scored = outcome.get()
        add(scored.name, scored.scores)
        rows.append(submission.row_from_scores(
            collection.name, collection.kind, scored.name, scored.scores))
        unseen.append(scored.unseen)
    if failed and not rows:
      raise work.nothing_left(failed)
    run.report(unseen)
    submission.write(part, rows)
  return Prediction(scores_path, part, tuple(rows), tuple(failed))


class _Scored(NamedTuple):
  """The scores of a graph.

  Attributes:
    name: of the graph.
    scores: (c,) float32.
    unseen: what training never saw of it.
  """

  name: str
  scores: np.ndarray
  unseen: run_lib.Unseen


def _outcomes(run: run_lib.Run, split: collections.Split, order: Sequence[int],
              engine: work.Engine) -> Iterator[tuple[pathlib.Path, work.Outcome[_Scored]]]:
  """The path and the outcome of each graph, in the given order."""
  # Each process receives the collection, so it leaves out the list of files, which may be long.
  collection = dataclasses.replace(split.collection, files=None)
  whole = collections.Split(collection, split.split, split.paths, split.packs)
  groups = [_part(whole, members) for members in _groups(split, order)]
  task = _Score.with_run(run)
  outcomes = zip(groups, engine.map(task, groups, _bytes_of))
  for group, outcome in outcomes:
    if outcome.error is None or len(group) == 1:
      yield from zip(group.paths, _of_graphs(group, outcome))
      continue
    # One graph has ended the worker, or the task: the others of its group are scored without it.
    # All following scores are kept in a file until then, because this needs further pipelines.
    with tempfile.TemporaryFile() as kept:
      lost = [(group, outcome)]
      for later, outcome in outcomes:
        is_lost = outcome.error is not None and len(later) > 1
        if is_lost:
          lost.append((later, outcome))
        pickle.dump(None if is_lost else outcome, kept)
      again = _again(task, [group for group, _ in lost], engine)
      kept.seek(0)
      yield from zip(group.paths, next(again))
      for later in groups[groups.index(group) + 1:]:
        stored = pickle.load(kept)
        yield from zip(later.paths, next(again) if stored is None else _of_graphs(later, stored))
    return


def _of_graphs(group: collections.Split, outcome: "work.Outcome[list[work.Outcome[_Scored]]]"
               ) -> "list[work.Outcome[_Scored]]":
  """The outcome of each graph of a group."""
  if outcome.error is None:
    return outcome.get()
  return [work.Outcome(error=outcome.error)] * len(group)


def _again(task: "_Score", groups: Sequence[collections.Split], engine: work.Engine
           ) -> "Iterator[list[work.Outcome[_Scored]]]":
  """The outcomes of groups whose worker or task has failed: only the graph that causes it is lost.

  Graphs are tried one by one. Those that do not fail are scored together again, as if the others
  had been damaged: how graphs are grouped decides how scores are rounded.
  """
  _logger.warning("%d graphs were scored by workers that failed; they are scored one by one",
                  sum(map(len, groups)))
  single = [_part(group, [index]) for group in groups for index in range(len(group))]
  tried = [_of_graphs(one, outcome)[0]
           for one, outcome in zip(single, engine.map(task, single, _bytes_of))]
  by_group = []
  for group in groups:
    by_group.append(tried[:len(group)])
    del tried[:len(group)]
  sound = [[index for index, outcome in enumerate(outcomes) if outcome.error is None]
           for outcomes in by_group]
  together = [_part(group, members) for group, members in zip(groups, sound) if len(members) > 1]
  joint = engine.map(task, together, _bytes_of)
  for outcomes, members in zip(by_group, sound):
    scored = next(joint) if len(members) > 1 else work.Outcome()
    if scored.value is not None:
      for index, outcome in zip(members, scored.value):
        outcomes[index] = outcome
    yield outcomes


def _part(group: collections.Split, members: Sequence[int]) -> collections.Split:
  return collections.Split(
      group.collection, group.split, [group.paths[index] for index in members],
      None if group.packs is None else [group.packs[index] for index in members])


def _groups(split: collections.Split, order: Sequence[int]) -> list[list[int]]:
  """Graphs that are scored together: they depend on the split, not on where it is scored."""
  groups: list[list[int]] = []
  size = 0
  for index in order:
    nbytes = _bytes(split, index)
    if not groups or len(groups[-1]) == _GROUP_GRAPHS or size + nbytes > _GROUP_BYTES:
      groups.append([])
      size = 0
    groups[-1].append(index)
    size += nbytes
  return groups


def _bytes_of(split: collections.Split) -> float:
  return float(sum(_bytes(split, index) for index in range(len(split))))


def _bytes(split: collections.Split, index: int) -> int:
  """Size of a graph's arrays in memory; 0 if its file is damaged, which scoring reports."""
  if split.packs is not None:
    return sum(entry.nbytes for entry in split.packs[index].arrays.values())
  try:
    stored = headers.read_headers(split.paths[index])
  except (errors.DataError, errors.MissingDataError):
    return 0
  # Layouts are kept in one byte per value.
  return sum(header.nbytes // (header.dtype.itemsize if key == "node_config_feat" else 1)
             for key, header in stored.items())


@dataclasses.dataclass(frozen=True)
class _Score(work.Task[collections.Split, list[work.Outcome[_Scored]]]):
  """Scores a group of graphs with a run.

  Attributes:
    path, strict, prior: the arguments of `load_run`.
  """

  path: str
  strict: bool
  prior: str

  @classmethod
  def with_run(cls, run: run_lib.Run) -> "_Score":
    """The task for a run that is loaded already in this process."""
    prior = tile_prior.NONE if run.prior is None else tile_prior.ANALYTIC
    task = cls(str(run.directory), run.strict, prior)
    task.__dict__["_run"] = run
    return task

  @functools.cached_property
  def _run(self) -> run_lib.Run:
    # The process that starts the workers has loaded the run, and so has checked its plugins.
    return run_lib.load_run(self.path, self.strict, self.prior, trust_plugins=True)

  def __call__(self, group: collections.Split) -> list[work.Outcome[_Scored]]:
    read: dict[int, tuple[graphs.ConfiguredGraph, run_lib.Unseen]] = {}
    outcomes: dict[int, work.Outcome[_Scored]] = {}
    for index in range(len(group)):
      try:
        read[index] = self._read(group, index)
      except _OF_ONE_GRAPH as error:
        outcomes[index] = work.Outcome(error=error)
    scores = self._scores([graph for graph, _ in read.values()])
    for (index, (graph, unseen)), values in zip(read.items(), scores):
      outcomes[index] = (work.Outcome(error=values) if isinstance(values, Exception)
                         else work.Outcome(_Scored(graph.name, values, unseen)))
    return [outcomes[index] for index in range(len(group))]

  def _read(self, group: collections.Split, index: int
            ) -> tuple[graphs.ConfiguredGraph, run_lib.Unseen]:
    graph = group[index]
    unseen = self._run.unseen(graph)
    if self.strict:
      self._run.report([unseen])
    return graph, unseen

  def _scores(self, read: Sequence[graphs.ConfiguredGraph]) -> list[np.ndarray | Exception]:
    try:
      return list(self._run.score_group(read))
    except errors.DataError:
      pass  # The scores of one of them are not finite.
    scores: list[np.ndarray | Exception] = []
    for graph in read:
      try:
        scores += self._run.score_group([graph])
      except errors.DataError as error:
        scores.append(error)
    return scores
