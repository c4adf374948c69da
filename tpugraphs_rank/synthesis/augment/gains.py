"""What synthetic programs in training are worth: arms of a study, paired, with corrected intervals.

Everything starts from one frame, a row for each judged program of each training, with the columns

  task        the collection that is ranked
  budget      measured real programs that were trained on
  arm         the way to train, REAL and OVERSAMPLED among them
  subset      the seed: it draws the real programs, the weights and the synthetic programs
  graph, family, seen, and the metrics, as of `per_graph.evaluate`
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

# The real lists of each step of the mixed arms, alone; and as many real lists as those have in all.
REAL = "real"
OVERSAMPLED = "real_oversampled"
BASELINES = (REAL, OVERSAMPLED)
RANDOM = "random_graphs"
TEMPLATES = "templates"
# What arms are compared with, and the end of the names of the numbers that say so.
RIVALS: Mapping[str, str] = {
    REAL: "real", OVERSAMPLED: "oversampled", RANDOM: "random_graphs", TEMPLATES: "templates"}
# Arms of equal numbers of synthetic programs, which say what a source is worth.
MATCHED = "layerdag_matched"
_EQUAL = (MATCHED, RANDOM, TEMPLATES)
# Arms that differ from another in one thing: synthetic graphs there, or what is learned before.
CONTROLS: Mapping[str, str] = {
    "layerdag_auxiliary": "real_auxiliary", "layerdag_selfsupervised": "real_selfsupervised",
    "layerdag_selfsupervised_measured": "layerdag"}
METRICS: Mapping[str, str] = {
    "tau": "kendall_tau", "top1_slowdown": "top1_slowdown", "top5_slowdown": "top5_slowdown"}
# The judged programs: all, and those of groups that the training split has, or has not.
PARTS = ("all", "seen", "unseen_groups")


def part(frame: pd.DataFrame, name: str) -> pd.DataFrame:
  """The rows of one of PARTS; none where it is not known which groups training saw."""
  if name == "all":
    return frame
  return aggregate.seen(frame) if name == "seen" else aggregate.unseen(frame)


def parts_of(frame: pd.DataFrame) -> dict[str, tuple[str, ...]]:
  """For each task those of PARTS that are reported: all, where it has groups of both kinds."""
  return {task: PARTS if all(len(part(rows, name)) for name in PARTS) else PARTS[:1]
          for task, rows in frame.groupby("task", sort=False)}


def means(frame: pd.DataFrame) -> list[dict[str, Any]]:
  """For each task, budget and arm: n_seeds, and of each of `parts_of` the task the METRICS.

  Each metric is {"mean", "sd", "n"} over subsets of its mean over the programs.
  """
  found = []
  parts = parts_of(frame)
  for (task, budget, arm), rows in frame.groupby(["task", "budget", "arm"], sort=False):
    entry: dict[str, Any] = {"task": task, "budget": int(budget), "arm": arm,
                             "n_seeds": int(rows["subset"].nunique())}
    for name in parts[task]:
      chosen = part(rows, name)
      if len(chosen):
        entry[name] = _figures(chosen)
    found.append(entry)
  return found


def _figures(rows: pd.DataFrame) -> dict[str, result_tables.Figure]:
  found = {}
  for name, column in METRICS.items():
    each = [metrics.mean_over_graphs(values[column].to_numpy(np.float64)).mean
            for _, values in rows.groupby("subset")]
    if np.isfinite(each).all():
      found[name] = result_tables.figure(each)
  return found


def comparisons(frame: pd.DataFrame, resamples: int = two_way.RESAMPLES, seed: int = 0
                ) -> list[dict[str, Any]]:
  """Each arm but the baselines beside its rivals, at each task and budget.

  Intervals are those of `two_way.mean_interval`, at the level that is corrected for the number of
  arms (but the baselines) over all tasks and budgets; those of a task that judges the groups that
  training has and those that it has not apart count twice. As everywhere in this project, the
  former are the headline then.

  Returns:
    For each such arm: task, budget, arm, n_seeds (subsets that it has in common with
    OVERSAMPLED, or else REAL), level; `programs`, the one of PARTS that the following are of: of
    tau gain_vs_<rival>, low_vs_<rival> and high_vs_<rival> for each of RIVALS, None where the rival
    was not run, is the arm itself, or (of random graphs and templates) has another number of
    synthetic programs; and `parts`: {part: {rival: {metric: Interval as JSON}}}. Arms of CONTROLS
    have gain_vs_control, low_vs_control and high_vs_control, too.
  """
  cells = {key: rows for key, rows in frame.groupby(["task", "budget", "arm"], sort=False)}
  ours = [key for key in cells if key[2] not in BASELINES]
  parts = parts_of(frame)
  judged = sum(max(len(parts[task]) - 1, 1) for task, _, _ in ours)
  level = two_way.corrected_level(max(judged, 1))
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
      found = _intervals(part(cells[key], name), part(theirs, name), level, resamples, seed)
      if found:
        parts.setdefault(name, {})[rival] = found
    if usable and rival in BASELINES:
      entry["n_seeds"] = len(usable)
    interval = parts.get(headline, {}).get(rival, {}).get("tau") if usable else None
    for end, field in (("gain", "mean"), ("low", "low"), ("high", "high")):
      entry[f"{end}_vs_{short}"] = interval[field] if interval else None
  return {**entry, "parts": parts}


def _intervals(ours: pd.DataFrame, theirs: pd.DataFrame, level: float, resamples: int, seed: int
               ) -> dict[str, Any]:
  """Of each metric that some program has, the gain's interval as JSON."""
  if not len(ours):
    return {}
  return {name: two_way.paired_interval(ours, theirs, column, level, resamples, seed)[0].as_dict()
          for name, column in METRICS.items()
          if ours[column].notna().any() and theirs[column].notna().any()}


# ---- as text -------------------------------------------------------------------------------------


def gain_text(interval: Mapping[str, float] | None, metric: str = "tau") -> str:
  """A gain and its interval: "+0.060 [+0.030, +0.080]"; slowdowns in percentage points."""
  if interval is None:
    return "-"
  scale, digits, unit = (100.0, 1, " %") if metric.endswith("slowdown") else (1.0, 3, "")
  mean, low, high = (f"{scale * interval[end]:+.{digits}f}" for end in ("mean", "low", "high"))
  return f"{mean} [{low}, {high}]{unit}"


def rows_of(averages: Sequence[Mapping[str, Any]], compared: Sequence[Mapping[str, Any]],
            name: str = "all", rivals: Sequence[str] = BASELINES
            ) -> tuple[list[str], list[list[str]]]:
  """Header and rows of a table of arms, one row each.

  Args:
    averages: of `means`, of one task and budget.
    compared: of `comparisons`, of the same.
    name: one of PARTS.
    rivals: over which gains in tau are shown; of slowdowns, over OVERSAMPLED only.
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
    found = by_arm.get(entry["arm"], {}).get("parts", {}).get(name, {})
    rows.append([
        entry["arm"].replace("_", " "),
        *(result_tables.cell(metric, entry[name].get(metric)) for metric in METRICS),
        *(gain_text(found.get(rival, {}).get(metric), metric) for rival, metric in gains),
        str(entry["n_seeds"])])
  return header, rows


def of(entries: Sequence[Mapping[str, Any]], task: str, budget: int) -> list[Mapping[str, Any]]:
  """The entries of one task and budget."""
  return [entry for entry in entries if (entry["task"], entry["budget"]) == (task, budget)]


def gain_series(compared: Sequence[Mapping[str, Any]], task: str, rival: str = OVERSAMPLED,
                metric: str = "tau", name: str = "all"
                ) -> dict[str, list[tuple[int, bootstrap.Interval]]]:
  """For each arm of a task its budgets and gains, by budget, for `plots.gain_against_budget`."""
  found: dict[str, list[tuple[int, bootstrap.Interval]]] = {}
  for entry in sorted(compared, key=lambda one: one["budget"]):
    interval = entry["parts"].get(name, {}).get(rival, {}).get(metric)
    if entry["task"] == task and interval and math.isfinite(interval["mean"]):
      found.setdefault(entry["arm"], []).append(
          (entry["budget"], bootstrap.Interval(**interval)))
  return found
