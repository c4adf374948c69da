"""Draws the figure of the README and of the documentation's home page from a trained model.

  ./run python docs/figures.py                          # The bundled model.
  ./run python docs/figures.py runs/demo/residual_gnn-seed0

Writes docs/assets/ranking.svg: for three test kernels, the measured runtime of every tile size
against the rank that the model predicts. The kernels are those at the quartiles of Kendall's tau
among the test kernels of families that training saw, so none is hand-picked.
"""

import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # Hide TensorFlow's start-up messages.

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from tpugraphs_rank import metrics
from tpugraphs_rank.evaluation import baselines
from tpugraphs_rank.evaluation import task as task_lib
from tpugraphs_rank.training import run as run_lib

OUTPUT = pathlib.Path(__file__).resolve().parent / "assets" / "ranking.svg"
PREDICTED, HEURISTIC, PERFECT, BEST = "#3b5bdb", "#e8590c", "#868e96", "#2b8a3e"
STYLE = {
    "font.size": 9, "axes.titlesize": 9.5, "axes.spines.top": False, "axes.spines.right": False,
    "legend.frameon": False, "svg.hashsalt": "tpugraphs_rank",
    "figure.constrained_layout.use": True}


def draw(run: run_lib.Run, path: pathlib.Path) -> None:
  """Writes the figure of a run on its collection's test split."""
  task = task_lib.load_task(run.config.data, "test", run.config.training.seed)
  groups = task.seen_groups or set()
  programs = [program for program in task.programs
              if task.collection.group(program.graph.name) in groups]
  predicted = run.score_programs(programs)
  heuristic = baselines.trivial("size_heuristic", programs)
  taus = [metrics.kendall_tau(program.graph.relative_runtime, scores)
          for program, scores in zip(programs, predicted)]
  order = np.argsort(taus, kind="stable")
  shown = [int(order[round(quantile * (len(order) - 1))]) for quantile in (0.25, 0.5, 0.75)]
  with plt.rc_context(STYLE):
    figure, axes = plt.subplots(1, len(shown), figsize=(9, 3))
    for axis, index in zip(axes, shown):
      graph = programs[index].graph
      ratio = graph.relative_runtime / graph.relative_runtime.min()
      ranks = np.arange(1, len(ratio) + 1)
      by_model = ratio[metrics.ranking(predicted[index])]
      axis.plot(ranks, np.sort(ratio), color=PERFECT, linewidth=1.5, label="perfect ranking")
      axis.plot(ranks, ratio[metrics.ranking(heuristic[index])], "x", color=HEURISTIC,
                markersize=4, alpha=0.7, label="largest tile first")
      axis.plot(ranks, by_model, "o", color=PREDICTED, markersize=4.5, label="predicted ranking")
      axis.plot(ranks[np.argmin(by_model)], 1, "o", color=BEST, markersize=8, fillstyle="none",
                markeredgewidth=1.5, label="fastest tile size")
      axis.set_yscale("log", base=2)
      axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}x")
      family = graph.name.partition(".")[0]
      axis.set_title(f"{family}, Kendall's tau {taus[index]:.2f}")
      axis.set_xlabel("predicted rank (1 = fastest)")
    axes[0].set_ylabel("measured runtime / best")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
  draw(run_lib.load_run(sys.argv[1] if len(sys.argv) > 1 else "bundled:tile_xla_cpu"), OUTPUT)
