"""Figures that compare synthetic with real traces; no pyplot, so that no display is needed."""

from collections.abc import Mapping
from typing import Any

import matplotlib
from matplotlib import collections as mpl_collections
from matplotlib import figure as figure_lib
import numpy as np

from tpugraphs_rank import files
from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.traces import comparison
from tpugraphs_rank.synthesis.traces import subgraphs

# The palette of Okabe and Ito, which readers with color blindness can distinguish.
_COLORS = ("#0072B2", "#56B4E9", "#D55E00", "#999999")
_STYLE: dict[Any, Any] = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
                          "legend.frameon": False}
_TITLES = {
    "depth": "depth of a graph, levels", "width": "nodes of a level",
    "operands": "dependencies of a node", "users": "users of a node",
    "duration": "duration of a node, µs", "critical_path": "critical path, µs",
    "work": "total work, µs"}
_LOG = ("width", "duration", "critical_path", "work")


def distributions(path: files.PathLike, samples: Mapping[str, dags_lib.Dags],
                  durations: Mapping[str, np.ndarray] | None) -> None:
  """Plots the distribution function of each quantity.

  Args:
    path: the PNG file to write.
    samples: graphs by legend entry, at most four.
    durations: microseconds of the nodes of each; None: without quantities of time.

  Raises:
    OutputError: the file cannot be written.
  """
  of = {name: comparison.quantities(graphs, durations[name] if durations else None)
        for name, graphs in samples.items()}
  shown = [name for name in _TITLES if all(name in quantities for quantities in of.values())]
  with matplotlib.rc_context(_STYLE):
    figure = figure_lib.Figure(figsize=(11, 5.4 if len(shown) > 4 else 3), layout="constrained")
    axes: Any = figure.subplots(2 if len(shown) > 4 else 1, 4, squeeze=False).reshape(-1)
    for axis, name in zip(axes, shown):
      for color, (title, quantities) in zip(_COLORS, of.items()):
        values = np.sort(quantities[name]).astype(float)
        axis.step(values + (name == "duration"), np.arange(1, len(values) + 1) / len(values),
                  where="post", color=color, label=title)
      axis.set(xlabel=_TITLES[name], ylim=(0, 1.02), xscale="log" if name in _LOG else "linear")
    for axis in axes[len(shown):]:
      axis.axis("off")
    axes[0].set_ylabel("share of at most x")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center",
                  ncols=len(of))
    with files.atomic_write(path) as file:
      figure.savefig(file, format="png", dpi=150)


def side_by_side(path: files.PathLike, samples: Mapping[str, dags_lib.Dags]) -> None:
  """Draws graphs as strips: levels from left to right, the nodes of a level above one another.

  Args:
    path: the PNG file to write.
    samples: graphs by title, in common vocabularies; colors are the values of the attribute
      `device`, or else of the first one.

  Raises:
    OutputError: the file cannot be written.
  """
  rows = [(title, graphs, graph) for title, graphs in samples.items()
          for graph in range(len(graphs))]
  with matplotlib.rc_context(_STYLE):
    figure = figure_lib.Figure(figsize=(11, 0.9 * len(rows) + 0.5), layout="constrained")
    axes: Any = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
    for axis, (title, graphs, graph) in zip(axes, rows):
      _strip(axis, graphs, graph)
      axis.set_title(f"{title}: {graphs.sizes[graph]} nodes", loc="left", fontsize=8)
      axis.set(yticks=[])
      axis.spines["left"].set_visible(False)
    axes[-1].set_xlabel("level")
    with files.atomic_write(path) as file:
      figure.savefig(file, format="png", dpi=150)


def _strip(axis: Any, graphs: dags_lib.Dags, graph: int) -> None:
  rows, edges = graphs.nodes(graph), graphs.edges(graph)
  level = subgraphs.execution_levels(graphs, graph)
  order = np.argsort(level, kind="stable")
  height = np.zeros(len(level))
  # The first node of a level is in the middle, the next ones are above and below it.
  within = np.arange(len(level)) - np.searchsorted(level[order], level[order])
  height[order] = (within + 1) // 2 * np.where(within % 2, 1, -1)
  ends = np.stack([np.stack([level[edges[:, side]], height[edges[:, side]]], axis=1)
                   for side in (0, 1)], axis=1)
  axis.add_collection(mpl_collections.LineCollection(ends, colors="#bbbbbb", linewidths=0.4))
  column = graphs.x_names.index("device") if "device" in graphs.x_names else 0
  color = np.array(_COLORS)[graphs.x[rows, column] % len(_COLORS)]
  axis.scatter(level, height, s=3, c=color, linewidths=0, zorder=2)


def nearest(path: files.PathLike, samples: Mapping[str, np.ndarray]) -> None:
  """Plots histograms of distances to the nearest training graph, from 0 to 1.

  Args:
    path: the PNG file to write.
    samples: (G,) distances by legend entry.
  """
  with matplotlib.rc_context(_STYLE):
    figure = figure_lib.Figure(figsize=(5, 3), layout="constrained")
    axis = figure.subplots()
    edges = np.linspace(0, 1, 41).tolist()
    for color, (title, values) in zip(_COLORS[1:], samples.items()):
      axis.hist(values, edges, weights=np.full(len(values), 1 / len(values)),
                color=color, alpha=0.6, label=title)
    axis.set(xlabel="distance to the nearest training graph", ylabel="share of graphs")
    axis.legend()
    with files.atomic_write(path) as file:
      figure.savefig(file, format="png", dpi=150)
