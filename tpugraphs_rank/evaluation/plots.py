"""Plots of training and evaluation, as PNG files.

Figures are created without pyplot, so they change no global state and need no display.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib import axes as axes_lib
from matplotlib import figure as figure_lib
from matplotlib import ticker
import numpy as np
import pandas as pd

from tpugraphs_rank import files
from tpugraphs_rank import metrics
from tpugraphs_rank.data import splits
from tpugraphs_rank.evaluation import bootstrap
from tpugraphs_rank.evaluation import per_graph

# Okabe and Ito's colours, which readers with colour blindness can distinguish.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C8C")
_MARKERS = "osD^vP*X"
_STYLE = {
    "font.size": 9, "axes.titlesize": 10, "axes.labelsize": 9, "legend.fontsize": 8,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3,
    "grid.linewidth": 0.6, "legend.frameon": False, "axes.axisbelow": True}
_DPI = 150
# Smaller slowdowns are drawn at the lower end of a logarithmic axis, which has no zero.
_FOOT = 1e-4
_CEILING = "other_pass_kendall_tau"
_MARKED_KS = (1, 2, 3, 5, 10, 20, 50, 100)


def _figure(rows: int, columns: int, width: float, height: float, sharey: bool = False
            ) -> tuple[figure_lib.Figure, np.ndarray]:
  figure = figure_lib.Figure(figsize=(width, height), layout="constrained")
  return figure, figure.subplots(rows, columns, squeeze=False, sharey=sharey)


def _save(figure: figure_lib.Figure, path: files.PathLike) -> None:
  with files.atomic_write(path) as file:
    figure.savefig(file, format="png", dpi=_DPI)


def training_curves(path: files.PathLike, histories: Mapping[str, pd.DataFrame]) -> None:
  """Plots loss and OPA of training and validation by epoch, for one or several runs.

  Args:
    path: the PNG file.
    histories: for each run's name its `history.csv`. Runs whose names are equal up to the last
      " seed " share a colour.

  Raises:
    OutputError: the file cannot be written.
  """
  with matplotlib.rc_context(_STYLE):
    figure, axes = _figure(1, 2, 9.0, 3.4)
    models = list(dict.fromkeys(name.rpartition(" seed ")[0] or name for name in histories))
    labelled = set()
    for name, history in histories.items():
      model = name.rpartition(" seed ")[0] or name
      colour = COLOURS[models.index(model) % len(COLOURS)]
      for axis, quantity in zip(axes[0], ("loss", "opa")):
        train = "loss" if quantity == "loss" else "train_opa"
        for column, style, part in ((train, "--", "training"), (f"valid_{quantity}", "-",
                                                                 "validation")):
          shown = history[["epoch", column]].dropna()
          new = axis is axes[0, 0] and (model, part) not in labelled
          label = f"{model}, {part}" if new else None
          axis.plot(shown["epoch"], shown[column], style, color=colour, linewidth=1.3,
                    alpha=0.9 if part == "validation" else 0.6, label=label)
          labelled.add((model, part))
    axes[0, 0].set(xlabel="epoch", ylabel="loss (mean over lists)", title="Loss")
    axes[0, 1].set(xlabel="epoch", ylabel="ordered pair accuracy",
                   title="OPA (training: sampled lists; validation: whole graphs)")
    for axis in axes[0]:
      axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    figure.legend(loc="outside lower center", ncols=min(2 * len(models), 4))
    _save(figure, path)


def rank_against_runtime(
    path: files.PathLike, programs: Sequence[splits.ProgramView], scores: Sequence[np.ndarray],
    frame: pd.DataFrame, title: str = "", count: int = 6,
) -> None:
  """Plots the runtime by predicted rank: some graphs from worst to best tau, and all pooled.

  Args:
    path: the PNG file.
    programs: the graphs.
    scores: for each graph (c',), higher = predicted faster.
    frame: the result of `per_graph.evaluate` for these scores, in the same order.
    title: title of the figure.
    count: number of single graphs, evenly spaced in the order of their tau.

  Raises:
    DataError: a graph has no runtimes.
    OutputError: the file cannot be written.
  """
  taus = frame["kendall_tau"].to_numpy(np.float64)
  order = np.argsort(np.where(np.isnan(taus), np.inf, taus), kind="stable")
  order = order[:max(int((~np.isnan(taus)).sum()), 1)]
  chosen = order[np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).astype(int))]
  with matplotlib.rc_context(_STYLE):
    rows = -(-len(chosen) // 3)
    figure = figure_lib.Figure(figsize=(11.5, 1.0 + 2.6 * max(rows, 1)), layout="constrained")
    panels: Any = figure.subfigures(1, 2, width_ratios=(2.3, 1))
    left, right = panels
    axes = left.subplots(rows, 3, squeeze=False)
    for axis in axes.flat[len(chosen):]:
      axis.set_visible(False)
    for axis, index in zip(axes.flat, chosen):
      runtimes = per_graph.runtimes_of(programs[index])
      axis.plot(metrics.mean_ranks(scores[index]), runtimes / runtimes.min(), "o", markersize=3,
                color=COLOURS[0], alpha=_opacity(len(runtimes)), rasterized=True)
      _runtime_axis(axis)
      axis.set_title(f"{_shortened(programs[index].graph.name)}\ntau {taus[index]:.2f}", fontsize=8)
    left.supxlabel("predicted rank (1 = predicted fastest)", fontsize=9)
    left.supylabel("runtime / best runtime", fontsize=9)
    _pooled_ranks(right.subplots(), programs, scores, order)
    if title:
      figure.suptitle(title, fontsize=10)
    _save(figure, path)


def _pooled_ranks(axis: axes_lib.Axes, programs: Sequence[splits.ProgramView],
                  scores: Sequence[np.ndarray], order: np.ndarray) -> None:
  """Plots median and quartiles of the relative runtime of all graphs by relative predicted rank."""
  places, ratios = [], []
  for index in order:
    runtimes = per_graph.runtimes_of(programs[index])
    if runtimes.size > 1:
      places.append((metrics.mean_ranks(scores[index]) - 1) / (runtimes.size - 1))
      ratios.append(runtimes / runtimes.min())
  if not places:
    axis.set_visible(False)
    return
  place, ratio = np.concatenate(places), np.concatenate(ratios)
  edges = np.linspace(0.0, 1.0, min(10, max(place.size // 5, 1)) + 1)
  bins = np.clip(np.searchsorted(edges, place, side="right") - 1, 0, len(edges) - 2)
  filled = [number for number in range(len(edges) - 1) if (bins == number).any()]
  low, middle, high = np.array([
      np.quantile(ratio[bins == number], [0.25, 0.5, 0.75]) for number in filled]).T
  centres = ((edges[:-1] + edges[1:]) / 2)[filled]
  axis.fill_between(centres, low, high, color=COLOURS[0], alpha=0.2, linewidth=0,
                    label="middle half")
  axis.plot(centres, middle, "o-", color=COLOURS[0], markersize=3.5, label="median")
  _runtime_axis(axis)
  axis.set(xlabel="predicted rank / number of configurations", ylabel="runtime / best runtime",
           xlim=(0, 1))
  axis.set_title(f"all {len(places)} graphs", fontsize=9)
  axis.legend(loc="upper left")


def _opacity(count: int) -> float:
  return float(np.clip(60.0 / count, 0.05, 0.8))


def _shortened(name: str, limit: int = 34) -> str:
  return name if len(name) <= limit else f"{name[:limit - 9]}…{name[-8:]}"


def _runtime_axis(axis: axes_lib.Axes) -> None:
  """Logarithmic where runtimes span more than a factor of 5; plain numbers as tick labels."""
  low, high = axis.dataLim.intervaly
  if high / max(low, 1e-12) > 5:
    axis.set_yscale("log")
    subs = (1.0, 2.0, 3.0, 5.0, 7.0) if high / low < 10 else (1.0, 2.0, 5.0)
    axis.yaxis.set_major_locator(ticker.LogLocator(base=10, subs=subs))
    axis.yaxis.set_minor_locator(ticker.NullLocator())
  else:
    axis.yaxis.set_major_locator(ticker.MaxNLocator(5, steps=(1, 2, 5, 10)))
  axis.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))


def slowdown_against_k(
    path: files.PathLike, runtimes: Sequence[np.ndarray],
    scores_by_ranker: Mapping[str, Sequence[Sequence[np.ndarray]]],
    parts: Mapping[str, Sequence[int]] | None = None, max_k: int = 100,
) -> None:
  """Plots the mean top-K slowdown over graphs by K, with one line per ranker.

  Args:
    path: the PNG file.
    runtimes: for each graph (c',), see `per_graph.runtimes_of`.
    scores_by_ranker: for each ranker, for each seed, for each graph (c',) scores. With several
      seeds, the line is their mean and the band reaches from the lowest to the highest.
    parts: for each panel its title and the indices of its graphs. None: one panel with all graphs.
    max_k: the largest K, unless no graph has that many configurations.

  Raises:
    OutputError: the file cannot be written.
  """
  panels = {"all graphs": range(len(runtimes))} if parts is None else parts
  largest = min(max_k, max((len(values) for values in runtimes), default=1))
  with matplotlib.rc_context(_STYLE):
    figure, axes = _figure(1, len(panels), 1.2 + 4.4 * len(panels), 4.2, sharey=True)
    for axis, (title, chosen) in zip(axes[0], panels.items()):
      for number, (name, seeds) in enumerate(scores_by_ranker.items()):
        lines = [np.mean([metrics.slowdown_curve(runtimes[index], scores[index], largest)
                          for index in chosen], axis=0) for scores in seeds]
        _slowdown_line(axis, number, name if axis is axes[0, 0] else None, np.array(lines))
      _slowdown_axes(axis, largest)
      axis.set_title(f"{title} ({len(chosen)} graphs)")
    axes[0, 0].set_ylabel("slowdown of the best of K, mean over graphs")
    figure.legend(loc="outside lower center", ncols=min(len(scores_by_ranker), 3 * len(panels)))
    _save(figure, path)


def _slowdown_line(axis: axes_lib.Axes, number: int, label: str | None, lines: np.ndarray
                   ) -> None:
  """Draws the mean of the lines of a ranker's seeds (s, k), and their range as a band."""
  colour = COLOURS[number % len(COLOURS)]
  shown = np.maximum(lines, _FOOT)
  places = np.arange(1, lines.shape[1] + 1)
  axis.plot(places, shown.mean(axis=0), color=colour, label=label, linewidth=1.5, clip_on=False,
            marker=_MARKERS[number % len(_MARKERS)], markersize=4,
            markevery=[k - 1 for k in _MARKED_KS if k <= len(places)])
  if len(lines) > 1:
    axis.fill_between(places, shown.min(axis=0), shown.max(axis=0), color=colour, alpha=0.15,
                      linewidth=0)


def _slowdown_axes(axis: axes_lib.Axes, largest: int) -> None:
  axis.set_xscale("log")
  axis.set_yscale("log")
  axis.set_ylim(bottom=_FOOT)
  axis.xaxis.set_major_locator(ticker.FixedLocator([k for k in _MARKED_KS if k <= largest]))
  axis.xaxis.set_minor_locator(ticker.NullLocator())
  axis.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
  axis.yaxis.set_major_locator(ticker.LogLocator(base=10))
  axis.yaxis.set_major_formatter(ticker.FuncFormatter(
      lambda value, _: f"{'≤ ' if value <= 1.01 * _FOOT else ''}{100 * value:g} %"))
  axis.set_xlabel("K, number of configurations tried")


def tau_by_family(
    path: files.PathLike, frames: Mapping[str, pd.DataFrame], title: str = "",
    models: Sequence[str] = (),
) -> None:
  """Plots the mean tau of each family, with one marker per ranker. Unseen groups come last.

  Args:
    path: the PNG file.
    frames: for each ranker its frame of `per_graph.evaluate` (or the mean over seeds).
    title: title of the figure.
    models: the rankers with larger markers.

  Raises:
    OutputError: the file cannot be written.
  """
  first = next(iter(frames.values()))
  families = _families(first)
  with matplotlib.rc_context({**_STYLE, "axes.grid.axis": "x"}):
    figure, axes = _figure(1, 1, 7.5, 1.4 + 0.26 * len(families))
    axis = axes[0, 0]
    places = {family: place for place, (family, _) in enumerate(families)}
    for number, (name, frame) in enumerate(frames.items()):
      means = frame.groupby("family")["kendall_tau"].mean()
      axis.plot(means.to_numpy(), [places[family] for family in means.index],
                _MARKERS[number % len(_MARKERS)], color=COLOURS[number % len(COLOURS)],
                markersize=7 if name in models else 4.5, alpha=0.9 if name in models else 0.7,
                label=name, zorder=3 if name in models else 2)
    if _CEILING in first:
      means = first.groupby("family")[_CEILING].mean().dropna()
      axis.plot(means.to_numpy(), [places[family] for family in means.index], "|", color="#555555",
                markersize=9, markeredgewidth=1.5, label="other pass")
    counts = first.groupby("family").size()
    axis.set_yticks(range(len(families)),
                    [f"{family} ({counts[family]})" for family, _ in families], fontsize=8)
    seen = sum(known for _, known in families)
    if 0 < seen < len(families):
      axis.axhline(seen - 0.5, color="black", linewidth=0.8)
      axis.text(1.005, seen - 0.5, "↑ seen groups\n↓ unseen groups", fontsize=7, va="center",
                transform=axis.get_yaxis_transform())
    axis.axvline(0.0, color="black", linewidth=0.6)
    axis.set_ylim(len(families) - 0.5, -0.5)
    axis.set(xlabel="Kendall's tau (mean over the graphs of the family)", title=title)
    figure.legend(loc="outside lower center", ncols=-(-(len(frames) + 1) // 2))
    _save(figure, path)


def _families(frame: pd.DataFrame) -> list[tuple[str, bool]]:
  """Families and whether their group was seen: seen ones first, each part by decreasing tau."""
  entries: dict[str, tuple[bool, float]] = {}
  for family, part in frame.groupby("family"):
    known = part["seen"].iloc[0]
    entries[str(family)] = (bool(pd.isna(known) or known), float(part["kendall_tau"].mean()))
  ordered = sorted(entries, key=lambda name: (not entries[name][0], -entries[name][1]))
  return [(name, entries[name][0]) for name in ordered]


def gain_against_budget(
    path: files.PathLike,
    panels: Mapping[str, Mapping[str, Sequence[tuple[int, bootstrap.Interval]]]],
    label: str = "gain in Kendall's tau",
) -> None:
  """Plots the gains of arms at several budgets, with their intervals; one panel per part.

  Args:
    path: the PNG file.
    panels: for each panel's title, for each arm, its budgets (programs) and gains.
    label: the label of the gains.

  Raises:
    OutputError: the file cannot be written.
  """
  budgets = sorted({budget for arms in panels.values() for by_arm in arms.values()
                    for budget, _ in by_arm})
  arms = list(dict.fromkeys(arm for by_arm in panels.values() for arm in by_arm))
  with matplotlib.rc_context(_STYLE):
    columns = max(len(panels), 1)
    figure, axes = _figure(1, columns, 1.2 + 3.4 * columns, 3.6, sharey=True)
    for axis, (title, by_arm) in zip(axes[0], panels.items()):
      for arm, points in by_arm.items():
        number = arms.index(arm)
        # Next to each other, so that intervals of one budget do not overlap.
        places = [budgets.index(budget) + 0.5 * ((number + 0.5) / len(arms) - 0.5)
                  for budget, _ in points]
        gains = [interval for _, interval in points]
        ends = [[0.0 if end is None else abs(end - gain.mean) for end, gain in zip(each, gains)]
                for each in ([gain.low for gain in gains], [gain.high for gain in gains])]
        axis.errorbar(places, [gain.mean for gain in gains], ends,
                      fmt=_MARKERS[number % len(_MARKERS)], capsize=2, markersize=5, linewidth=1,
                      color=COLOURS[number % len(COLOURS)], label=arm.replace("_", " "))
      axis.axhline(0.0, color="black", linewidth=0.8)
      axis.set_xticks(range(len(budgets)), [str(budget) for budget in budgets])
      axis.set(xlabel="measured real programs", title=title)
    axes[0, 0].set_ylabel(label)
    handles = {name: handle for axis in axes[0]
               for handle, name in zip(*axis.get_legend_handles_labels())}
    if handles:
      figure.legend(handles.values(), handles, loc="outside lower center", ncols=4)
    _save(figure, path)


def sweep(path: files.PathLike, metric: str, higher_is_better: bool,
          trials: Sequence[tuple[int, float, bool, Mapping[str, Any]]],
          importance: Mapping[str, float]) -> None:
  """Plots the trials of a sweep: the metric by trial, and against each setting.

  Args:
    path: the PNG file.
    metric: the name of the metric.
    higher_is_better: whether larger values are better.
    trials: for each trial its number, its metric, whether it was trained to the end, and its
      settings.
    importance: the share of the variance that each setting explains; may be empty.

  Raises:
    OutputError: the file cannot be written.
  """
  ordered = sorted(trials, key=lambda trial: trial[0])
  names = list(dict.fromkeys(name for *_, settings in ordered for name in settings))
  names.sort(key=lambda name: -importance.get(name, 0.0))
  columns = min(len(names) + 1, 4)
  rows = -(-(len(names) + 1) // columns)
  values = np.array([value for _, value, _, _ in ordered])
  full = np.array([is_full for _, _, is_full, _ in ordered])
  with matplotlib.rc_context(_STYLE):
    figure, axes = _figure(rows, columns, 3.1 * columns, 2.6 * rows, sharey=True)
    for axis in axes.flat[len(names) + 1:]:
      axis.set_visible(False)
    for axis, name in zip(axes.flat, [None, *names]):
      if name is None:
        places = np.array([number for number, *_ in ordered])
        running = np.maximum.accumulate if higher_is_better else np.minimum.accumulate
        axis.step(places[full], running(values[full]), where="post", color=COLOURS[0], linewidth=1)
        axis.set(title="best so far", xlabel="trial", ylabel=metric.replace("_", " "))
        axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
      else:
        chosen = [settings.get(name) for *_, settings in ordered]
        numeric = all(isinstance(value, (int, float)) and not isinstance(value, bool)
                      for value in chosen)
        texts = list(dict.fromkeys(map(str, chosen)))
        places = np.array(chosen, float) if numeric else np.array(
            [texts.index(str(value)) for value in chosen], float)
        if not numeric:
          axis.set_xticks(range(len(texts)), texts)
        elif places.min() > 0 and places.max() > 8 * places.min():
          axis.set_xscale("log")
        elif all(isinstance(value, int) for value in chosen):
          axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        share = f" ({importance[name]:.0%})" if name in importance else ""
        axis.set(title=name + share)
      for which, colour, label in ((full, COLOURS[0], "finished"),
                                   (~full, COLOURS[7], "ended early")):
        if which.any():
          axis.plot(places[which], values[which], "o", color=colour, markersize=4, alpha=0.8,
                    label=label)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    _save(figure, path)
