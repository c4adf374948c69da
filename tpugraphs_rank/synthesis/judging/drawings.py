"""Plots that compare synthetic graphs with real ones: distributions, and drawings by level.

Figures do not use pyplot, so they change no global state and need no display.
"""

from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib import axes as axes_lib
from matplotlib import figure as figure_lib
from matplotlib import lines as lines_lib
from matplotlib import ticker
import numpy as np

from tpugraphs_rank import files
from tpugraphs_rank.hlo import opcodes
from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.judging import measures

# The palette of Okabe and Ito, which readers with color blindness can distinguish.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
_OTHER = "#BBBBBB"
_STYLE = {"font.size": 9, "axes.titlesize": 10, "axes.spines.top": False,
          "axes.spines.right": False, "legend.frameon": False, "axes.axisbelow": True}
_DPI = 150
_TITLES = {"layers": "levels of a graph", "layer_size": "nodes of a level",
           "nodes": "nodes of a graph", "operands": "operands of a node",
           "users": "users of a node"}
_BARS = 20
_SWEEPS = 4  # Passes of ordering within levels, alternating down and up; more change little.


def distributions(path: files.PathLike, samples: Mapping[str, dags_lib.Dags]) -> None:
  """Plots the distribution functions of all quantities, and the frequencies of attribute values.

  Args:
    path: the PNG file to write.
    samples: graphs by legend entry, the real ones first.

  Raises:
    DataError: the samples have different attributes.
    OutputError: the file cannot be written.
  """
  graphs = dict(zip(samples, dags_lib.in_common_vocabularies(list(samples.values()))))
  first = next(iter(graphs.values()))
  quantities = {name: measures.quantities(dags) for name, dags in graphs.items()}
  with matplotlib.rc_context(_STYLE):
    figure = figure_lib.Figure(figsize=(10, 5.2 + 2.4 * (len(first.x_names) - 1)),
                               layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1, len(first.x_names)])
    for axis, (quantity, title) in zip(top.subplots(1, len(_TITLES), sharey=True),
                                       _TITLES.items()):
      for colour, (name, of) in zip(_COLOURS, quantities.items()):
        values = np.sort(of[quantity])
        axis.step(values, np.arange(1, len(values) + 1) / len(values), where="post",
                  color=colour, label=name)
      axis.set(xlabel=title, ylim=(0, 1.02))
      axis.xaxis.set_major_locator(ticker.MaxNLocator(4, integer=True))
    top.axes[0].set_ylabel("share of at most x")
    top.legend(*top.axes[0].get_legend_handles_labels(), loc="outside upper center",
               ncols=len(graphs))
    axes = bottom.subplots(len(first.x_names), 1, squeeze=False)[:, 0]
    for column, (axis, attribute) in enumerate(zip(axes, first.x_names)):
      shares = {name: np.bincount(dags.x[:, column], minlength=len(dags.vocabularies[column]))
                / len(dags.x) for name, dags in graphs.items()}
      order = np.argsort(-next(iter(shares.values())), kind="stable")[:_BARS]
      width = 0.8 / len(shares)
      for place, (colour, share) in enumerate(zip(_COLOURS, shares.values())):
        axis.bar(np.arange(len(order)) + place * width - 0.4 + width / 2, share[order], width,
                 color=colour)
      axis.set(ylabel=f"share of nodes by {attribute}")
      axis.set_xticks(range(len(order)), _words(first, column)[order], rotation=60, ha="right",
                      fontsize=7)
    _save(figure, path)


def side_by_side(path: files.PathLike, rows: Mapping[str, dags_lib.Dags]) -> None:
  """Draws graphs: one row per sample, roots at the top, one line per level.

  Args:
    path: the PNG file to write.
    rows: graphs to draw, by row title; rows of equal length look best.

  Raises:
    DataError: the rows have different attributes.
    OutputError: the file cannot be written.
  """
  graphs = dict(zip(rows, dags_lib.in_common_vocabularies(list(rows.values()))))
  every = dags_lib.concat([dags.with_labels(np.zeros([len(dags), 0]), ())
                           for dags in graphs.values()])
  counts = np.bincount(every.x[:, 0], minlength=len(every.vocabularies[0]))
  common = np.argsort(-counts, kind="stable")[:len(_COLOURS)]
  colours = np.full(len(counts), _OTHER, object)
  colours[common] = _COLOURS[:len(common)]
  columns = max(map(len, graphs.values()))
  with matplotlib.rc_context(_STYLE):
    figure = figure_lib.Figure(figsize=(2.2 * columns, 2.9 * len(graphs) + 0.5),
                               layout="constrained")
    axes = figure.subplots(len(graphs), columns, squeeze=False)
    for row, (title, dags) in zip(axes, graphs.items()):
      for place, axis in enumerate(row):
        axis.axis("off")
        if place < len(dags):
          draw(axis, dags, place, colours)
          label = (f", {dags.y_names[0]} {dags.y[place, 0]:.3g}" if dags.y_names else "")
          axis.set_title(f"{title if place == 0 else ''}\n{dags.sizes[place]} nodes{label}",
                         fontsize=8)
    words = _words(every, 0)
    shown = [(words[kind], colours[kind]) for kind in common if counts[kind]]
    shown += [("other", _OTHER)] * (np.count_nonzero(counts) > len(shown))
    figure.legend(
        handles=[lines_lib.Line2D([], [], marker="o", linestyle="", color=colour, label=word)
                 for word, colour in shown],
        loc="outside lower center", ncols=len(shown), fontsize=8)
    _save(figure, path)


def draw(axis: axes_lib.Axes, dags: dags_lib.Dags, graph: int, colours: Sequence[str]) -> None:
  """Draws one graph; `colours` has one color for each value of the first attribute."""
  x, y = positions(dags, graph)
  for user, operand in dags.edges(graph):
    axis.plot([x[user], x[operand]], [y[user], y[operand]], color="#00000040", linewidth=0.6,
              zorder=1)
  kinds = dags.x[dags.nodes(graph), 0]
  axis.scatter(x, y, s=float(np.clip(700 / len(x), 5, 40)), c=[colours[kind] for kind in kinds],
               zorder=2, linewidths=0)
  axis.margins(0.08)


def positions(dags: dags_lib.Dags, graph: int) -> tuple[np.ndarray, np.ndarray]:
  """(n,) x and (n,) y coordinates of a graph's nodes, by level, with few edge crossings.

  The nodes of a level are evenly spaced and ordered by the mean position of their neighbors
  (Sugiyama's layering with barycenters).
  """
  level = dags.level[dags.nodes(graph)]
  users, operands = dags.edges(graph).T
  position = np.zeros(len(level))
  members = [np.flatnonzero(level == depth) for depth in range(level.max() + 1)]
  for nodes in members:
    position[nodes] = (np.arange(len(nodes)) + 0.5) / len(nodes)
  for sweep in range(_SWEEPS):
    # Down by the users, up by the operands; each level uses the new positions of earlier levels.
    ends, neighbors = (operands, users) if sweep % 2 == 0 else (users, operands)
    count = np.maximum(np.bincount(ends, minlength=len(level)), 1)
    isolated = np.bincount(ends, minlength=len(level)) == 0
    for nodes in members if sweep % 2 == 0 else members[::-1]:
      total = np.bincount(ends, weights=position[neighbors], minlength=len(level))
      wanted = np.where(isolated, position, total / count)[nodes]
      position[nodes[np.argsort(wanted, kind="stable")]] = (
          np.arange(len(nodes)) + 0.5) / len(nodes)
  return position, -level.astype(np.float64)


def _words(dags: dags_lib.Dags, column: int) -> np.ndarray:
  """Display names of an attribute's values."""
  words = dags.vocabularies[column]
  # Only files extracted from collections use this project's opcode numbers.
  if dags.x_names[column] == "opcode" and "collection" in dags.provenance:
    return np.array([opcodes.opcode_name(number) for number in words])
  return words.astype(str)


def _save(figure: figure_lib.Figure, path: files.PathLike) -> None:
  with files.atomic_write(path) as file:
    figure.savefig(file, format="png", dpi=_DPI)
