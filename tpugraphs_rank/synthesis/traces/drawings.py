"""Figures that compare synthetic with real traces; no pyplot, so that no display is needed."""

from collections.abc import Mapping
from typing import Any

import matplotlib
from matplotlib import figure as figure_lib
import numpy as np

from tpugraphs_rank import files
from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.traces import comparison

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


def nearest(path: files.PathLike, samples: Mapping[str, np.ndarray]) -> None:
  """Plots histograms of distances to the nearest training graph, from 0 to 1.

  Args:
    path: the PNG file to write.
    samples: (G,) distances by legend entry.
  """
  with matplotlib.rc_context(_STYLE):
    figure = figure_lib.Figure(figsize=(5, 3), layout="constrained")
    axis = figure.subplots()
    for color, (title, values) in zip(_COLORS[1:], samples.items()):
      axis.hist(values, 40, (0, 1), weights=np.full(len(values), 1 / len(values)),
                color=color, alpha=0.6, label=title)
    axis.set(xlabel="distance to the nearest training graph", ylabel="share of graphs")
    axis.legend()
    with files.atomic_write(path) as file:
      figure.savefig(file, format="png", dpi=150)
