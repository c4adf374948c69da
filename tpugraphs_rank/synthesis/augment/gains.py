"""Gains from synthetic programs in training: paired comparisons of arms with corrected intervals.

All functions start from one frame with a row for each evaluated program of each training and the
columns

  task        the collection that is ranked
  budget      number of measured real programs used for training
  arm         how the ranker is trained; REAL and OVERSAMPLED are the baselines
  subset      the seed: it determines the real programs, the weights and the synthetic programs
  graph, family, seen, and the metrics, as in `per_graph.evaluate`
"""

from collections.abc import Mapping, Sequence
import math
from typing import Any

import numpy as np
import pandas as pd

from tpugraphs_rank import metrics
from tpugraphs_rank.evaluation import aggregate
from tpugraphs_rank.evaluation import bootstrap
from tpugraphs_rank.evaluation import result_tables
from tpugraphs_rank.evaluation import two_way

# REAL trains on the real lists of each step of the mixed arms alone; OVERSAMPLED replaces the
# synthetic lists by further real ones.
REAL = "real"
OVERSAMPLED = "real_oversampled"
BASELINES = (REAL, OVERSAMPLED)
RANDOM = "random_graphs"
TEMPLATES = "templates"
# The arms to compare with, and the suffix of the names of the resulting figures.
RIVALS: Mapping[str, str] = {
    REAL: "real", OVERSAMPLED: "oversampled", RANDOM: "random_graphs", TEMPLATES: "templates"}
# Arms with equal numbers of synthetic programs, which compare the sources.
MATCHED = "layerdag_matched"
_EQUAL = (MATCHED, RANDOM, TEMPLATES)
# Arms whose control differs in one aspect: the synthetic graphs, or what is learned before ranking.
CONTROLS: Mapping[str, str] = {
    "layerdag_auxiliary": "real_auxiliary", "layerdag_selfsupervised": "real_selfsupervised",
    "layerdag_selfsupervised_measured": "layerdag"}
METRICS: Mapping[str, str] = {
    "tau": "kendall_tau", "top1_slowdown": "top1_slowdown", "top5_slowdown": "top5_slowdown"}
# Subsets of the evaluated programs: all, groups that occur in training, and groups that do not.
PARTS = ("all", "seen", "unseen_groups")


def part(frame: pd.DataFrame, name: str) -> pd.DataFrame:
  """The rows of one of PARTS; empty where it is unknown which groups occur in training."""
  if name == "all":
    return frame
  return aggregate.seen(frame) if name == "seen" else aggregate.unseen(frame)


def parts_of(frame: pd.DataFrame) -> dict[str, tuple[str, ...]]:
  """For each task the PARTS to report: all of them if it has groups of both kinds."""
  return {task: PARTS if all(len(part(rows, name)) for name in PARTS) else PARTS[:1]
          for task, rows in frame.groupby("task", sort=False)}


def means(frame: pd.DataFrame) -> list[dict[str, Any]]:
  """For each task, budget and arm: n_seeds, and the METRICS of each of the task's `parts_of`.

  Each metric is {"mean", "sd", "n"} over subsets of its mean over the programs.
  """
  entries = []
  parts = parts_of(frame)
  for (task, budget, arm), rows in frame.groupby(["task", "budget", "arm"], sort=False):
    entry: dict[str, Any] = {"task": task, "budget": int(budget), "arm": arm,
                             "n_seeds": int(rows["subset"].nunique())}
    for name in parts[task]:
      chosen = part(rows, name)
      if len(chosen):
        entry[name] = _figures(chosen)
    entries.append(entry)
  return entries


def _figures(rows: pd.DataFrame) -> dict[str, result_tables.Figure]:
  figures = {}
  for name, column in METRICS.items():
    each = [metrics.mean_over_graphs(values[column].to_numpy(np.float64)).mean
            for _, values in rows.groupby("subset")]
    if np.isfinite(each).all():
      figures[name] = result_tables.figure(each)
  return figures


def comparisons(frame: pd.DataFrame, resamples: int = two_way.RESAMPLES, seed: int = 0
                ) -> list[dict[str, Any]]:
  """Compares each arm except the baselines with its rivals, at each task and budget.

  Intervals are those of `two_way.mean_interval`, at a level corrected for the number of arms
  (without the baselines) over all tasks and budgets. Tasks that report seen and unseen groups
  separately count twice, and seen groups are then the headline, as everywhere in this project.

  Returns:
    For each such arm: task, budget, arm, n_seeds (subsets in common with OVERSAMPLED, or else with
    REAL), level; `programs`, the one of PARTS that the following gains in tau refer to:
    gain_vs_<rival>, low_vs_<rival> and high_vs_<rival> for each of RIVALS, None where the rival was
    not run, is the arm itself, or (for random graphs and templates) has another number of synthetic
    programs; and `parts`: {part: {rival: {metric: Interval as JSON}}}. Arms of CONTROLS also have
    gain_vs_control, low_vs_control and high_vs_control.
  """
  cells = {key: rows for key, rows in frame.groupby(["task", "budget", "arm"], sort=False)}
  ours = [key for key in cells if key[2] not in BASELINES]
  parts = parts_of(frame)
  compared = sum(max(len(parts[task]) - 1, 1) for task, _, _ in ours)
  level = two_way.corrected_level(max(compared, 1))
  return [_comparison(cells, key, parts[key[0]], level, resamples, seed) for key in ours]


def _comparison(cells: Mapping[tuple[str, int, str], pd.DataFrame], key: tuple[str, int, str],
                names: Sequence[str], level: float, resamples: int, seed: int) -> dict[str, Any]:
  task, budget, arm = key
  headline = "seen" if "seen" in names else "all"
  entry: dict[str, Any] = {"task": task, "budget": int(budget), "arm": arm, "n_seeds": 0,
                           "level": level, "programs": headline}
  parts: dict[str, dict[str, dict[str, Any]]] = {}
  control = {CONTROLS[arm]: "control"} if arm in CONTROLS else {}
  for rival, short in {**RIVALS, **control}.items():
    theirs = cells.get((task, budget, rival))
    fair = rival in BASELINES or rival in control or (arm in _EQUAL and rival in _EQUAL)
    usable = theirs is not None and rival != arm and fair and (
        set(theirs["subset"]) & set(cells[key]["subset"]))
    for name in names if usable else ():
      intervals = _intervals(part(cells[key], name), part(theirs, name), level, resamples, seed)
      if intervals:
        parts.setdefault(name, {})[rival] = intervals
    if usable and rival in BASELINES:
      entry["n_seeds"] = len(usable)
    interval = parts.get(headline, {}).get(rival, {}).get("tau") if usable else None
    for end, field in (("gain", "mean"), ("low", "low"), ("high", "high")):
      entry[f"{end}_vs_{short}"] = interval[field] if interval else None
  return {**entry, "parts": parts}


def _intervals(ours: pd.DataFrame, theirs: pd.DataFrame, level: float, resamples: int, seed: int
               ) -> dict[str, Any]:
  """The interval of the gain as JSON, for each metric that some program has."""
  if not len(ours):
    return {}
  return {name: two_way.paired_interval(ours, theirs, column, level, resamples, seed)[0].as_dict()
          for name, column in METRICS.items()
          if ours[column].notna().any() and theirs[column].notna().any()}


# ---- as text -------------------------------------------------------------------------------------


def gain_text(interval: Mapping[str, float | None] | None, metric: str = "tau") -> str:
  """A gain and its interval, like "+0.060 [+0.030, +0.080]"; slowdowns in percentage points."""
  if interval is None:
    return "-"
  scale, digits, unit = (100.0, 1, " %") if metric.endswith("slowdown") else (1.0, 3, "")
  mean, low, high = (
      "" if value is None else f"{scale * value:+.{digits}f}"
      for value in map(interval.get, ("mean", "low", "high")))
  return f"{mean} [{low}, {high}]{unit}" if low and high else f"{mean}{unit}"


def rows_of(averages: Sequence[Mapping[str, Any]], compared: Sequence[Mapping[str, Any]],
            name: str = "all", rivals: Sequence[str] = BASELINES
            ) -> tuple[list[str], list[list[str]]]:
  """Header and rows of a table with one row per arm.

  Args:
    averages: result of `means`, for one task and budget.
    compared: result of `comparisons`, for the same.
    name: one of PARTS.
    rivals: arms over which gains in tau are shown; gains in slowdown are over OVERSAMPLED only.
  """
  gains = [(rival, "tau") for rival in rivals] + [
      (OVERSAMPLED, metric) for metric in METRICS if metric.endswith("slowdown")]
  header = ["training", *(result_tables.TITLES[metric] for metric in METRICS),
            *(f"{result_tables.TITLES[metric]}: gain over {RIVALS[rival].replace('_', ' ')}"
              for rival, metric in gains), "seeds"]
  by_arm = {entry["arm"]: entry for entry in compared}
  rows = []
  for entry in averages:
    if name not in entry:
      continue
    intervals = by_arm.get(entry["arm"], {}).get("parts", {}).get(name, {})
    rows.append([
        entry["arm"].replace("_", " "),
        *(result_tables.cell(metric, entry[name].get(metric)) for metric in METRICS),
        *(gain_text(intervals.get(rival, {}).get(metric), metric) for rival, metric in gains),
        str(entry["n_seeds"])])
  return header, rows


def of(entries: Sequence[Mapping[str, Any]], task: str, budget: int) -> list[Mapping[str, Any]]:
  """The entries of one task and budget."""
  return [entry for entry in entries if (entry["task"], entry["budget"]) == (task, budget)]


def gain_series(compared: Sequence[Mapping[str, Any]], task: str, rival: str = OVERSAMPLED,
                metric: str = "tau", name: str = "all"
                ) -> dict[str, list[tuple[int, bootstrap.Interval]]]:
  """For each arm of a task its budgets and gains, for `plots.gain_against_budget`."""
  series: dict[str, list[tuple[int, bootstrap.Interval]]] = {}
  for entry in sorted(compared, key=lambda one: one["budget"]):
    interval = entry["parts"].get(name, {}).get(rival, {}).get(metric)
    if entry["task"] == task and interval and math.isfinite(interval["mean"]):
      series.setdefault(entry["arm"], []).append(
          (entry["budget"], bootstrap.Interval(**interval)))
  return series
