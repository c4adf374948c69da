"""Plots that compare synthetic graphs with real ones: distributions, and drawings of graphs.

Figures do not use pyplot, so they change no global state and need no display.
"""

from collections.abc import Mapping
from typing import Any

import matplotlib
from matplotlib import figure as figure_lib
from matplotlib import ticker
import numpy as np

from tpugraphs_rank import files
from tpugraphs_rank.drawing import scenes
from tpugraphs_rank.drawing import views
from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.dags import views as dags_views
from tpugraphs_rank.synthesis.judging import measures

# The palette of Okabe and Ito, which readers with color blindness can distinguish.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
_STYLE: dict[Any, Any] = {"font.size": 9, "axes.titlesize": 10, "axes.spines.top": False,
          "axes.spines.right": False, "legend.frameon": False, "axes.axisbelow": True}
_DPI = 200
_TITLES = {"layers": "levels of a graph", "layer_size": "nodes of a level",
           "nodes": "nodes of a graph", "operands": "operands of a node",
           "users": "users of a node"}
_BARS = 20
# Size of a drawn graph, and limits of its height / width and of its nodes.
_CELL_INCHES, _MAX_ASPECT, _MAX_DRAWN_NODES = 4.0, 2.0, 60


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
    panels: Any = figure.subfigures(2, 1, height_ratios=[1, len(first.x_names)])
    top, bottom = panels
    for axis, (quantity, title) in zip(top.subplots(1, len(_TITLES), sharey=True),
                                       _TITLES.items()):
      for color, (name, of) in zip(_COLORS, quantities.items()):
        values = np.sort(of[quantity])
        axis.step(values, np.arange(1, len(values) + 1) / len(values), where="post",
                  color=color, label=name)
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
      for place, (color, share) in enumerate(zip(_COLORS, shares.values())):
        axis.bar(np.arange(len(order)) + place * width - 0.4 + width / 2, share[order], width,
                 color=color)
      axis.set(ylabel=f"share of nodes by {attribute}")
      axis.set_xticks(range(len(order)), dags_views.attribute_names(first, column)[order],
                      rotation=60, ha="right", fontsize=7)
    _save(figure, path)


def side_by_side(path: files.PathLike, rows: Mapping[str, dags_lib.Dags]) -> None:
  """Draws graphs in a grid with one row per sample, in the style of `tpugraphs_rank.drawing`.

  Args:
    path: the PNG file to write.
    rows: graphs to draw, by row title; rows of equal length look best. Large graphs are cut.

  Raises:
    DataError: the rows have different attributes.
    OutputError: the file cannot be written.
  """
  dags_lib.common_vocabularies(list(rows.values()))
  grid = [[scenes.arrange(views.limit(
      dags_views.view(dags, graph, f"{title}, {dags.sizes[graph]} nodes"), _MAX_DRAWN_NODES))
           for graph in range(len(dags))] for title, dags in rows.items()]
  columns = max(map(len, grid))
  heights = [min(max((scene.height / scene.width for scene in row), default=0.1), _MAX_ASPECT)
             * _CELL_INCHES for row in grid]
  size = columns * _CELL_INCHES, sum(heights)
  figure = figure_lib.Figure(figsize=size, facecolor="white")
  figure.set_layout_engine("none")  # Whatever the user's settings say.
  bottom = size[1]
  for row, height in zip(grid, heights):
    bottom -= height
    for column, scene in enumerate(row):
      inches = 0.95 * min(_CELL_INCHES / scene.width, height / scene.height)
      box = (column * _CELL_INCHES / size[0], (bottom + height - inches * scene.height) / size[1],
             inches * scene.width / size[0], inches * scene.height / size[1])
      scenes.draw(figure.add_axes(box), scene, 72 * inches)
  _save(figure, path)


def _save(figure: figure_lib.Figure, path: files.PathLike) -> None:
  with files.atomic_write(path) as file:
    figure.savefig(file, format="png", dpi=_DPI)
