"""The competition's score of a submission, for splits with known runtimes."""

from collections.abc import Mapping, Sequence
import dataclasses
import math
from typing import NamedTuple

import numpy as np

from tpugraphs_rank import commands
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import metrics
from tpugraphs_rank.data import npz
from tpugraphs_rank.data import registry
from tpugraphs_rank.submission import expectation as expectation_lib
from tpugraphs_rank.submission import merging
from tpugraphs_rank.submission import reading
from tpugraphs_rank.submission import validation


class GraphScore(NamedTuple):
  """The score of one graph; NaN if it has nothing to rank."""

  collection: str
  graph: str
  configurations: int
  score: float


@dataclasses.dataclass(frozen=True)
class SubmissionScore:
  """A scored submission.

  Attributes:
    competition: the score and its parts; `missing` lists the collections without a scored graph.
    graphs: one entry per graph with runtimes, by collection and name.
    without_runtimes: for each collection of the file the number of graphs without runtimes.
  """

  competition: metrics.CompetitionScore
  graphs: tuple[GraphScore, ...]
  without_runtimes: Mapping[str, int]

  def as_dict(self) -> dict[str, object]:
    """The score as JSON values; null for undefined numbers."""
    number = lambda value: None if math.isnan(value) else value
    return {
        "score": number(self.competition.score), "partial": number(self.competition.partial),
        "missing": list(self.competition.missing),
        "collections": {
            name: {"score": number(mean.mean), "graphs": mean.graphs, "skipped": mean.skipped}
            for name, mean in self.competition.collections.items()},
        "without_runtimes": dict(self.without_runtimes)}


def score(data: bytes, split: str = "valid",
          names: Sequence[str | registry.Collection] = expectation_lib.COLLECTIONS,
          data_root: files.PathLike | None = None, partial: bool = False) -> SubmissionScore:
  """Scores a submission, or a part of one, for a split whose runtimes are known.

  Args:
    data: the bytes of the file, which must be valid for the collections that it mentions.
    split: the split that it ranks.
    names: the collections that the score consists of.
    data_root: as for `load_collection`.
    partial: whether to score the graphs that exist if the split is incomplete.

  Raises:
    DataError: the file has faults or mentions none of the collections, or no graph has runtimes.
    TpuGraphsRankError: as `expectation.from_data`.
  """
  known = {collection.name: collection for collection in map(registry.get_collection, names)}
  present = merging.mentioned([data], tuple(known))
  if not present:
    raise errors.DataError(
        f"the submission has no row of {', '.join(known)}; name its collections with --collections")
  expectation = expectation_lib.from_data(
      [known[name] for name in present], split, data_root, partial)
  faults = validation.validate(data, expectation)
  if faults:
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    raise errors.DataError(
        f"the submission is not valid for {split}: {faults[0]}{more}; "
        f"{commands.command('submission', 'validate', '--split', split)} lists all faults")
  scored: list[GraphScore] = []
  without = dict.fromkeys(present, 0)
  rows = {row.id: row for row in reading.parse(data).rows}
  for expected in expectation.rows:
    path, count = expected.path, expected.num_configs
    assert path is not None and count is not None  # Always so in `from_data`.
    arrays = npz.read_arrays(path, ("config_runtime", "config_runtime_normalizers"))
    if not arrays["config_runtime"].any():
      without[expected.collection] += 1
      continue
    try:
      value = _score(expected.kind, count, arrays,
                     validation.canonical(rows[expected.id], expected))
    except errors.DataError as error:
      raise errors.DataError(f"{path}: {error}") from None
    scored.append(GraphScore(expected.collection, path.stem, count, value))
  if not scored:
    raise errors.DataError(
        f"none of the {len(expectation.rows)} graphs of {', '.join(present)} {split} has runtimes, "
        "so nothing can be scored; the released test splits have none: score a submission for "
        "--split=valid")
  by_collection = {name: [entry.score for entry in scored if entry.collection == name]
                   for name in present}
  return SubmissionScore(metrics.competition_score(by_collection, tuple(known)), tuple(scored),
                         {name: count for name, count in without.items() if count})


def _score(kind: str, count: int, arrays: Mapping[str, np.ndarray], indices: Sequence[int]
           ) -> float:
  scores = metrics.scores_from_ranking(indices, count)
  if kind == "layout":
    return metrics.layout_competition_score(arrays["config_runtime"], scores)
  if "config_runtime_normalizers" not in arrays:
    raise errors.DataError("key 'config_runtime_normalizers' is missing; download the file again")
  return metrics.tile_competition_score(
      arrays["config_runtime"], scores, arrays["config_runtime_normalizers"])
