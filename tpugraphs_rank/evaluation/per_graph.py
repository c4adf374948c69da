"""Metrics of a ranker, one row per graph, and the metrics of another measurement of the graph."""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
import logging
import math
import re
from typing import Any

import numpy as np
import pandas as pd

from tpugraphs_rank import errors
from tpugraphs_rank import metrics
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import registry
from tpugraphs_rank.data import splits
from tpugraphs_rank.evaluation import baselines

_logger = logging.getLogger(__name__)

# Results of all kinds have these, for comparison.
COMMON_KS = (1, 5, 10)
# Limits of two metrics: configurations within 3 times of the best, and pairs more than 5 % apart.
WITHIN = 3.0
GAP = 0.05

RANKING_COLUMNS = ("opa", "kendall_tau", "kendall_tau_b", "kendall_tau_within3", "opa_gap5")
# Columns `top{K}_...` of slowdowns where one pass chooses and another one judges, and of the share
# of the attainable gain; and the number of configurations that are measured until one is good.
ACROSS = "slowdown_across_passes"
GAIN = "gain_share"
MEASURED = "measured_until_good"
_TOP_K = re.compile(r"top(\d+)_")
_OTHER_PASS = "other_pass_"
OTHER_PASS_COLUMNS = tuple(
    f"{_OTHER_PASS}{name}" for name in (
        "kendall_tau", "kendall_tau_within3", "opa", "opa_gap5",
        *(f"top{k}_slowdown" for k in COMMON_KS)))


def slowdown_ks(collection: registry.Collection) -> tuple[int, ...]:
  """The K of the slowdown columns: those of the collection, and always 1, 5 and 10."""
  return tuple(sorted({*COMMON_KS, *collection.slowdown_ks}))


def slowdown_columns(ks: Iterable[int]) -> list[str]:
  """The slowdowns of these K, of a choice by one pass that another one judges, and gains."""
  return [f"top{k}_{name}" for k in ks for name in ("slowdown", ACROSS, GAIN)]


def metric_columns(frame: pd.DataFrame) -> list[str]:
  """The columns of a frame that are averaged over graphs: metrics and ceilings."""
  ks = {int(number[1]) for number in map(_TOP_K.match, frame.columns) if number}
  return [name for name in (*RANKING_COLUMNS, *slowdown_columns(sorted(ks)), MEASURED,
                            *OTHER_PASS_COLUMNS) if name in frame.columns]


def higher_is_better(column: str) -> bool:
  """False for slowdowns and for the number of measurements, true for all other metrics."""
  return "slowdown" not in column and column != MEASURED


def runtimes_of(program: splits.ProgramView, raw: bool = False) -> np.ndarray:
  """The runtimes (c',) float64 that rank a program's configurations.

  Args:
    program: a graph and its evaluated configurations.
    raw: measured nanoseconds, without merging equal configurations and, for tiles, without
      dividing by the normalizers.

  Raises:
    DataError: the graph has no runtimes (the released test splits have none).
  """
  graph = program.graph
  if not graph.has_runtimes:
    raise errors.DataError(
        f"{graph.name} has no runtimes, so its ranking cannot be evaluated; the released test "
        "splits have none: evaluate on valid, or rank the graphs without an evaluation")
  runtimes = graph.config_runtime.astype(np.float64) if raw else program.runtimes
  return runtimes if program.choice is None else runtimes[program.choice]


def training_groups(collection: registry.Collection, stems: Iterable[str]) -> AbstractSet[str]:
  """The groups of families of the training graphs with these names."""
  return frozenset(collection.group(stem) for stem in stems)


def evaluate(
    programs: Sequence[splits.ProgramView],
    scores: Sequence[np.ndarray],
    collection: registry.Collection,
    seen_groups: AbstractSet[str] | None = None,
    raw: bool = False,
    defaults: Sequence[float | None] | None = None,
    scores_with_ties: Sequence[np.ndarray] | None = None,
) -> pd.DataFrame:
  """Metrics of a ranker's scores, one row per graph.

  Args:
    programs: the graphs, and which of their configurations are evaluated.
    scores: for each program (c',), higher = predicted faster.
    collection: names families and groups, and the K of the slowdowns.
    seen_groups: `training_groups` of the training split; None if it is unknown.
    raw: use nanoseconds for tiles instead of runtimes over normalizers.
    defaults: for each program the runtime of its default, in the unit that ranks; None where it is
      unknown. Default: `baselines.default_runtime`; with `raw`, unknown everywhere.
    scores_with_ties: scores for the metrics of the first K and `measured_until_good`, for a ranker
      that orders some configurations at random. Default: `scores`.

  Returns:
    A frame with the columns
      graph, family, group: names.
      seen: whether the graph's group has a family in training; None if that is unknown.
      nodes, configurations: sizes; `configurations` counts the evaluated ones.
      degenerate: whether all scores are equal. Tau is then 0 by convention.
      tied: share of the configurations whose score another one has, too.
      opa, opa_pairs, kendall_tau, kendall_tau_b: see `tpugraphs_rank.metrics`.
      kendall_tau_within3: tau among the configurations within 3 times of the best.
      opa_gap5: OPA over pairs more than 5 % apart.
      top{K}_slowdown: for the collection's K and for 1, 5, 10; also of the following two.
      top{K}_gain_share: see `metrics.gain_share`; NaN if the default is unknown or less than 2 %
        can be gained.
      top{K}_slowdown_across_passes: see `metrics.slowdown_across_passes`; only if a graph has
        several passes.
      measured_until_good: see `metrics.measured_until_good`.
      best_runtime_ns, median_runtime_ns: over the evaluated configurations.
      other_pass_*: see `other_pass`; only if a graph has several passes.
    Metrics of a graph with nothing to rank are NaN, except that a slowdown is 0. If no graph has
    anything to rank, all metrics are NaN, and a warning says so.

  Raises:
    DataError: a graph has no runtimes, or the scores do not match the programs.
  """
  if len(programs) != len(scores):
    raise errors.DataError(
        f"{len(scores)} arrays of scores for {len(programs)} programs; expected one for each")
  if defaults is None:
    defaults = [None if raw else baselines.default_runtime(program) for program in programs]
  rows = []
  for program, score, first, default in zip(
      programs, scores, scores if scores_with_ties is None else scores_with_ties, defaults,
      strict=True):
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
        "tied": _tied(score),
        **_ranking(runtimes, score),
        **_top(runtimes, first, slowdown_ks(collection), default, passes_of(program, raw)),
        MEASURED: metrics.measured_until_good(runtimes, first),
        "best_runtime_ns": nanoseconds.min(),
        "median_runtime_ns": float(np.median(nanoseconds)),
        **other_pass(program, raw)}
    rows.append(row)
  frame = pd.DataFrame(rows)
  if rows and not frame["opa_pairs"].any():
    # Slowdowns of 0 would look like perfect rankings.
    frame[metric_columns(frame)] = math.nan
    _logger.warning(
        "%s: there is nothing to rank, so all metrics are undefined: in each of the %d graphs, the "
        "runtimes of all evaluated configurations are equal", collection.name, len(rows))
  return frame


def _tied(scores: np.ndarray) -> float:
  counts = np.unique(scores, return_counts=True)[1]
  return float(counts[counts > 1].sum() / counts.sum())


def _ranking(runtimes: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
  return {
      "opa": metrics.opa(runtimes, scores),
      "opa_pairs": metrics.opa_pairs(runtimes),
      "kendall_tau": metrics.kendall_tau(runtimes, scores),
      "kendall_tau_b": metrics.kendall_tau(runtimes, scores, "b"),
      "kendall_tau_within3": metrics.kendall_tau(runtimes, scores, within=WITHIN),
      "opa_gap5": metrics.opa(runtimes, scores, min_gap=GAP)}


def _top(runtimes: np.ndarray, scores: np.ndarray, ks: Sequence[int], default: float | None,
         passes: np.ndarray | None) -> dict[str, float]:
  """The columns of `slowdown_columns`."""
  values: dict[str, float] = {}
  for k in ks:
    values[f"top{k}_slowdown"] = metrics.topk_slowdown(runtimes, scores, k)
    values[f"top{k}_{GAIN}"] = math.nan if default is None else metrics.gain_share(
        runtimes, scores, k, default)
    if passes is not None:
      values[f"top{k}_{ACROSS}"] = metrics.slowdown_across_passes(passes, scores, k)
  return values


def passes_of(program: splits.ProgramView, raw: bool = False) -> np.ndarray | None:
  """The measurements of a program one by one, (p, c') float64, as `runtimes_of` its runtimes.

  None if the graph does not have two passes of positive runtimes.
  """
  graph = program.graph
  passes = getattr(graph, "config_runtime_passes", None)
  if passes is None or len(passes) < 2 or (passes <= 0).any():
    return None
  passes = passes.astype(np.float64)
  if isinstance(graph, graphs.TileGraph) and not raw:
    passes = passes / graph.config_runtime_normalizers
  return passes if program.choice is None else passes[:, program.choice]


def other_pass(program: splits.ProgramView, raw: bool = False) -> dict[str, float]:
  """Metrics of one measurement of a graph as a ranker of another, which show the data's noise.

  For all ordered pairs of passes in `config_runtime_passes`, one pass ranks and the other is the
  truth; the result is the mean over the pairs. The truth for a model is the mean of the passes,
  which is less noisy than a pass, so a perfect model may slightly exceed these values.

  Returns:
    OTHER_PASS_COLUMNS; empty if the graph does not have two passes of positive runtimes.
  """
  passes = passes_of(program, raw)
  if passes is None:
    return {}
  by_pair: dict[str, list[float]] = {name: [] for name in OTHER_PASS_COLUMNS}
  for truth, runtimes in enumerate(passes):
    for ranker, other in enumerate(passes):
      if truth == ranker:
        continue
      values = _ranking(runtimes, -other)
      values.update({f"top{k}_slowdown": metrics.topk_slowdown(runtimes, -other, k)
                     for k in COMMON_KS})
      for name in OTHER_PASS_COLUMNS:
        by_pair[name].append(values[name[len(_OTHER_PASS):]])
  return {name: float(np.mean(values)) for name, values in by_pair.items()}
