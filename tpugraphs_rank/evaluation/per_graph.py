"""Metrics of a ranker, one row a graph, and what other measurements of the graph would reach."""

from collections.abc import Iterable, Sequence
from typing import AbstractSet, Any

import numpy as np
import pandas as pd

from tpugraphs_rank import errors
from tpugraphs_rank import metrics
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import registry
from tpugraphs_rank.data import splits

# Always there, whatever the kind: results are compared by them.
COMMON_KS = (1, 5, 10)
# "Among configurations within 3 times of the best", and "pairs more than 5 % apart".
WITHIN = 3.0
GAP = 0.05

RANKING_COLUMNS = ("opa", "kendall_tau", "kendall_tau_b", "kendall_tau_within3", "opa_gap5")
_OTHER_PASS = "other_pass_"
OTHER_PASS_COLUMNS = tuple(
    f"{_OTHER_PASS}{name}" for name in (
        "kendall_tau", "kendall_tau_within3", "opa", "opa_gap5",
        *(f"top{k}_slowdown" for k in COMMON_KS)))


def slowdown_ks(collection: registry.Collection) -> tuple[int, ...]:
  """The K of the slowdown columns: the collection's, and always 1, 5 and 10."""
  return tuple(sorted({*COMMON_KS, *collection.slowdown_ks}))


def metric_columns(frame: pd.DataFrame) -> list[str]:
  """The columns of a frame that can be averaged over graphs: metrics and ceilings."""
  slowdowns = sorted((name for name in frame.columns if name.startswith("top")),
                     key=lambda name: int(name[len("top"):].partition("_")[0]))
  return [name for name in (*RANKING_COLUMNS, *slowdowns, *OTHER_PASS_COLUMNS)
          if name in frame.columns]


def higher_is_better(column: str) -> bool:
  """False for slowdowns, true for all other metrics."""
  return not column.endswith("slowdown")


def runtimes_of(program: splits.ProgramView, raw: bool = False) -> np.ndarray:
  """The runtimes (c',) float64 that a program's configurations are judged by.

  Args:
    program: a graph and its usable configurations.
    raw: nanoseconds for tiles too, instead of runtimes over normalizers; as measured, whatever
      was merged.

  Raises:
    DataError: the graph has no runtimes (the released test splits have none).
  """
  graph = program.graph
  if not graph.has_runtimes:
    raise errors.DataError(
        f"{graph.name} has no runtimes, so no ranking of it can be judged; the released test "
        "splits hold none: evaluate on valid, or rank the graphs without judging them")
  runtimes = graph.config_runtime.astype(np.float64) if raw else program.runtimes
  return runtimes if program.choice is None else runtimes[program.choice]


def training_groups(collection: registry.Collection, stems: Iterable[str]) -> AbstractSet[str]:
  """The groups of families that the training graphs of these names belong to."""
  return frozenset(collection.group(stem) for stem in stems)


def evaluate(
    programs: Sequence[splits.ProgramView],
    scores: Sequence[np.ndarray],
    collection: registry.Collection,
    seen_groups: AbstractSet[str] | None = None,
    raw: bool = False,
) -> pd.DataFrame:
  """Metrics of a ranker's scores, one row a graph.

  Args:
    programs: the graphs, and which of their configurations take part.
    scores: for each program (c',), higher = predicted faster.
    collection: names families and groups, and the K of the slowdowns.
    seen_groups: `training_groups` of the training split; None where it is not known.
    raw: judge tiles by nanoseconds instead of runtimes over normalizers.

  Returns:
    A frame with the columns
      graph, family, group: names.
      seen: whether the graph's group has a family in training; None where that is not known.
      nodes, configurations: sizes; `configurations` counts those that take part.
      degenerate: whether all scores are equal, so that tau is 0 by decision.
      opa, opa_pairs, kendall_tau, kendall_tau_b: see `tpugraphs_rank.metrics`.
      kendall_tau_within3: tau among the configurations within 3 times of the best.
      opa_gap5: OPA over pairs more than 5 % apart.
      top{K}_slowdown: for the collection's K and for 1, 5, 10.
      best_runtime_ns, median_runtime_ns: over the configurations that take part.
      other_pass_*: see `other_pass`; there if a graph holds several passes.
    Metrics are NaN where a graph has nothing to rank.

  Raises:
    DataError: a graph has no runtimes, or scores do not fit the programs.
  """
  if len(programs) != len(scores):
    raise errors.DataError(
        f"{len(scores)} arrays of scores for {len(programs)} programs; expected one for each")
  rows = []
  for program, score in zip(programs, scores):
    graph = program.graph
    runtimes = runtimes_of(program, raw)
    nanoseconds = runtimes_of(program, raw=True)
    group = collection.group(graph.name)
    row: dict[str, Any] = {
        "graph": graph.name,
        "family": collection.family(graph.name),
        "group": group,
        "seen": None if seen_groups is None else group in seen_groups,
        "nodes": graph.num_nodes,
        "configurations": runtimes.size,
        "degenerate": metrics.is_degenerate(runtimes, score),
        **_ranking(runtimes, score),
        **{f"top{k}_slowdown": metrics.topk_slowdown(runtimes, score, k)
           for k in slowdown_ks(collection)},
        "best_runtime_ns": nanoseconds.min(),
        "median_runtime_ns": float(np.median(nanoseconds)),
        **other_pass(program, raw)}
    rows.append(row)
  return pd.DataFrame(rows)


def _ranking(runtimes: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
  return {
      "opa": metrics.opa(runtimes, scores),
      "opa_pairs": metrics.opa_pairs(runtimes),
      "kendall_tau": metrics.kendall_tau(runtimes, scores),
      "kendall_tau_b": metrics.kendall_tau(runtimes, scores, "b"),
      "kendall_tau_within3": metrics.kendall_tau(runtimes, scores, within=WITHIN),
      "opa_gap5": metrics.opa(runtimes, scores, min_gap=GAP)}


def other_pass(program: splits.ProgramView, raw: bool = False) -> dict[str, float]:
  """What a graph's one measurement reaches as a ranker of another: the noise of the data.

  Each pass of `config_runtime_passes` ranks, each other pass judges; the mean over the ordered
  pairs of passes. A model is judged by the mean of the passes, which is less noisy than either, so
  a perfect model may come out slightly above this.

  Returns:
    OTHER_PASS_COLUMNS; empty where the graph holds no two passes of positive runtimes.
  """
  graph = program.graph
  passes = getattr(graph, "config_runtime_passes", None)
  if passes is None or len(passes) < 2 or (passes <= 0).any():
    return {}
  passes = passes.astype(np.float64)
  if isinstance(graph, graphs.TileGraph) and not raw:
    passes = passes / graph.config_runtime_normalizers
  if program.choice is not None:
    passes = passes[:, program.choice]
  found: dict[str, list[float]] = {name: [] for name in OTHER_PASS_COLUMNS}
  for judge, runtimes in enumerate(passes):
    for ranker, other in enumerate(passes):
      if judge == ranker:
        continue
      values = _ranking(runtimes, -other)
      values.update({f"top{k}_slowdown": metrics.topk_slowdown(runtimes, -other, k)
                     for k in COMMON_KS})
      for name in OTHER_PASS_COLUMNS:
        found[name].append(values[name[len(_OTHER_PASS):]])
  return {name: float(np.mean(values)) for name, values in found.items()}
