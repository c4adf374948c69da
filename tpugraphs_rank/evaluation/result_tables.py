"""Results of several rankers and seeds, as JSON values and as rows of tables."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tpugraphs_rank import metrics
from tpugraphs_rank.evaluation import aggregate
from tpugraphs_rank.evaluation import bootstrap
from tpugraphs_rank.evaluation import noise
from tpugraphs_rank.evaluation import per_graph

Figure = dict[str, float]  # {"mean", "sd", "n"}

_KS = (*per_graph.COMMON_KS, 100)  # 100 for layout collections only.

# Names of the figures in results, and the columns that they are means of.
FIGURES: Mapping[str, str] = {
    "opa": "opa",
    "tau": "kendall_tau",
    "tau_within3": "kendall_tau_within3",
    "opa_gap5": "opa_gap5",
    **{name: name for name in per_graph.slowdown_columns(_KS)},
    per_graph.MEASURED: per_graph.MEASURED,
}
TITLES: Mapping[str, str] = {
    "opa": "OPA", "tau": "tau", "tau_within3": "tau ≤ 3x", "opa_gap5": "OPA > 5 %",
    **{f"top{k}_slowdown": f"top-{k} slowdown" for k in _KS},
    **{f"top{k}_{per_graph.ACROSS}": f"top-{k} across passes" for k in _KS},
    **{f"top{k}_{per_graph.GAIN}": f"top-{k} gain" for k in _KS},
    per_graph.MEASURED: "measured until good"}
OTHER_PASS = "other pass"


def figure(values: Sequence[float]) -> Figure:
  """Mean and standard deviation (n - 1 in the denominator; 0 for one value) over seeds."""
  array = np.asarray(values, np.float64)
  return {"mean": float(array.mean()),
          "sd": float(array.std(ddof=1)) if array.size > 1 else 0.0, "n": int(array.size)}


def figures(frames: Sequence[pd.DataFrame], prefix: str = "") -> dict[str, Figure]:
  """For each of FIGURES: the mean over graphs of each frame, then mean and sd over the frames.

  Args:
    frames: results of `per_graph.evaluate`, one per seed.
    prefix: prefix of the columns, "other_pass_" for the ceiling.

  Returns:
    The figures whose columns exist and are defined for at least one graph.
  """
  result = {}
  for name, column in FIGURES.items():
    if all(prefix + column in frame for frame in frames):
      means = [metrics.mean_over_graphs(frame[prefix + column].to_numpy(np.float64)).mean
               for frame in frames]
      if np.isfinite(means).all():
        result[name] = figure(means)
  return result


def summarise(frames_by_model: Mapping[str, Sequence[pd.DataFrame]]) -> dict[str, Any]:
  """Results of several rankers on the same graphs.

  Args:
    frames_by_model: for each ranker the frames of `per_graph.evaluate`, one per seed.

  Returns:
    {"models": {name: {figure: {"mean", "sd", "n"}}}, "graphs": int} over the graphs of groups that
    training saw, and "models_unseen_groups" and "graphs_unseen_groups" over the others. Either part
    is left out if it has no graphs. If the training groups are unknown, "models" covers all graphs.
    n is the number of seeds. If the graphs have several measurements, "other_pass" and
    "other_pass_unseen_groups" are the figures of one measurement as a ranker of another.
  """
  first = next(iter(frames_by_model.values()))[0]
  result: dict[str, Any] = {}
  for suffix, part in aggregate.parts(first).items():
    result[f"models{suffix}"] = {
        name: figures([part(frame) for frame in frames])
        for name, frames in frames_by_model.items()}
    result[f"graphs{suffix}"] = len(part(first))
    ceiling = figures([part(first)], "other_pass_")
    if ceiling:
      result[f"other_pass{suffix}"] = ceiling
  return result


def style(name: str) -> tuple[float, int, str]:
  """How a figure or column is written: its factor, its decimals, and the unit after it."""
  if "slowdown" in name:
    return 100.0, 2, " %"
  if name.endswith(per_graph.GAIN):
    return 100.0, 0, " %"
  return (1.0, 1, "") if name == per_graph.MEASURED else (1.0, 3, "")


def cell(name: str, value: Figure | None) -> str:
  """A figure as text: slowdowns and gains in percent; the deviation only of several seeds."""
  if value is None:
    return "-"
  scale, digits, unit = style(name)
  text = f"{scale * value['mean']:.{digits}f}"
  if value["n"] > 1:
    text += f" ± {scale * value['sd']:.{digits}f}"
  return text + unit


def rows_of(results: Mapping[str, Any], suffix: str = "",
            figures_shown: Sequence[str] = tuple(FIGURES)) -> tuple[list[str], list[list[str]]]:
  """Header and rows of a table.

  Args:
    results: the result of `summarise`, or a dict of the same structure.
    suffix: "" or "_unseen_groups".
    figures_shown: names of figures, in order.

  Returns:
    The header, and one row per ranker; the last row is "other pass" if the results have it for
    one of these figures.
  """
  header = ["ranker", *(TITLES[name] for name in figures_shown)]
  entries = dict(results[f"models{suffix}"])
  ceiling = results.get(f"other_pass{suffix}", {})
  if set(ceiling) & set(figures_shown):
    entries[OTHER_PASS] = ceiling
  return header, [
      [ranker, *(cell(name, values.get(name)) for name in figures_shown)]
      for ranker, values in entries.items()]


def difference_rows(
    model: str, differences: Mapping[str, Mapping[str, bootstrap.Interval]],
) -> tuple[list[str], list[list[str]]]:
  """Header and rows of a table of `bootstrap.paired_differences`."""
  shown = {column: name for name, column in FIGURES.items()}
  columns = list(next(iter(differences.values()), {}))
  header = [f"gain of {model} over", *(TITLES.get(shown.get(column, column), column)
                                       for column in columns), "graphs"]
  rows = []
  for baseline, intervals in differences.items() if columns else ():
    cells = []
    for column in columns:
      interval = intervals[column]
      scale, digits, unit = style(column)
      text = f"{scale * interval.mean:+.{digits}f}"
      if interval.low is not None and interval.high is not None:
        text += f" [{scale * interval.low:+.{digits}f}, {scale * interval.high:+.{digits}f}]"
      cells.append(text + unit)
    rows.append([baseline, *cells, str(max(intervals[column].n for column in columns))])
  return header, rows


def ceiling_rows(ceilings: Mapping[str, noise.NoiseCeiling]) -> tuple[list[str], list[list[str]]]:
  """Header and rows of a table of noise ceilings, one row per graph."""
  header = ["graph", "runs", "configurations", "repeated", "runtime span", "repeats' sd",
            "between configurations", "tau of repeats", "tau at best", "OPA at best"]
  rows = []
  for name, ceiling in ceilings.items():
    percent = ["-" if value is None else _percent(value) for value in (
        ceiling.runtime_span, ceiling.repeat_sd_relative, ceiling.between_sd_relative)]
    best = "-" if ceiling.kendall_tau is None else (
        f"{ceiling.kendall_tau:.3f} ± {ceiling.kendall_tau_sd:.3f}")
    repeats = "-" if ceiling.repeat_kendall_tau is None else f"{ceiling.repeat_kendall_tau:.3f}"
    rows.append([name, str(ceiling.runs), str(ceiling.configurations), str(ceiling.repeated),
                 *percent, repeats, best, "-" if ceiling.opa is None else f"{ceiling.opa:.3f}"])
  return header, rows


def _percent(value: float) -> str:
  """A share in percent: two decimals, or two significant digits if the decimals are zero."""
  return f"{100 * value:.2f} %" if value >= 1e-3 or value == 0 else f"{100 * value:.2g} %"
