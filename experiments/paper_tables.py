"""Attention and segment dropout on one collection of layouts, by batch size and CPU second.

  python -m experiments.paper_tables --results results/paper_tables.json
  python -m experiments.paper_tables --collection layout:xla:random --seconds 3600

Trains each model with each batch size and each kind of segment dropout for the same CPU seconds:

  models    gnn              the residual GNN
            gnn_attention    attention over the configurations of a list, before each convolution
            gnn_nodes        attention over the nodes of a segment, before each convolution
  batches   10, 50 and 100 lists of 20 configurations
  segments  segments         one segment of at most 100 nodes in topological order
            edges            the nodes of edges drawn at random, at most 100

The architecture is that of the recipe `layout_xla_cpu_mixed` with one network and without
simulated effects of layouts, which describe the whole program. Every validation program is scored
as a whole after an eighth, a quarter, a half and all of the seconds. The test split is never read.
Reading data, tracing, TensorFlow's optimisation of the step and scoring do not count as training.
With few seconds, large batches have few steps: the results state both.

The study keeps finished cells and writes the results after each: run it again to continue.
"""

from collections.abc import Mapping, Sequence
import itertools
import pathlib
from typing import Any

from absl import flags
import numpy as np

from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import metrics
from tpugraphs_rank import recipes
from tpugraphs_rank import run_config
from tpugraphs_rank import tables
from tpugraphs_rank.cli import app
from tpugraphs_rank.data import batches
from tpugraphs_rank.training import run_directory

RECIPE = "layout_xla_cpu_mixed"
COLLECTION = "layout:xla_cpu:mixed:v1"
MODELS: dict[str, dict[str, Any]] = {
    "gnn": {"model": "residual_gnn"},
    "gnn_attention": {"model": "attention_gnn"},
    "gnn_nodes": {"model": "residual_gnn", "node_layers": ("node_attention",)},
}
BATCHES = (10, 50, 100)
SEGMENTS = {"segments": "drop", "edges": "edges"}
MAX_NODES, MAX_CONFIGS = 100, 20
# Every training follows these. The schedule must not depend on the number of steps.
SETTINGS: dict[str, Any] = {
    "max_nodes": MAX_NODES, "max_configs": MAX_CONFIGS, "schedule": "constant", "members": 1,
    "layout_costs": "none", "layout_features": "both", "duplicates": "keep",
    "validation_configs": "all"}
# When a model is evaluated, as parts of its seconds.
PARTS = (0.125, 0.25, 0.5, 1.0)
MEASURES = ("opa", "tau", "top1_slowdown", "top10_slowdown")

Cell = tuple[str, int, str]  # Model, batch size, segments.
Curve = list[dict[str, Any]]


def define_flags() -> None:
  """Defines the flags."""
  flags.DEFINE_string("collection", COLLECTION, "Name or descriptor of a collection of layouts.")
  flags.DEFINE_string("output", "build/paper_tables", "Folder of finished cells.")
  flags.DEFINE_string("results", None, "Writes the figures to this JSON file.")
  flags.DEFINE_string("figure", None, "Draws the curves into this SVG file.")
  flags.DEFINE_float("seconds", 60.0, "CPU seconds of training of each cell and seed.",
                     lower_bound=0.01)
  flags.DEFINE_list("seeds", ["0"], "Seeds of the trainings.")
  flags.DEFINE_list("models", list(MODELS), f"Models to train, among {', '.join(MODELS)}.")
  flags.DEFINE_list("batches", [str(size) for size in BATCHES], "Lists of a step.")
  flags.DEFINE_list("segments", list(SEGMENTS),
                    f"Kinds of segment dropout, among {', '.join(SEGMENTS)}.")
  flags.DEFINE_integer("valid_configs", 60, "Configurations of each validation program that are "
                       "scored, drawn once at random.", lower_bound=2)


def config_of(collection: str, cell: Cell, seed: int) -> run_config.RunConfig:
  """The configuration of one training.

  Args:
    collection: name or path of the descriptor.
    cell: model, batch size and segments.
    seed: of the training.
  """
  model, size, segments = cell
  base = config_lib.from_dict(run_config.RunConfig, recipes.read(RECIPE), source=RECIPE)
  return config_lib.override_by_flag(base, {
      **SETTINGS, **MODELS[model], "collection": collection, "seed": seed, "batch_size": size,
      "segment_mode": SEGMENTS[segments]})


def measure(prepared: Sequence[batches.PreparedGraph], scores: Sequence[np.ndarray]
            ) -> dict[str, Any]:
  """Means over programs of `MEASURES`, and "programs" with the values of each.

  Programs without an order of runtimes are left out.
  """
  programs: dict[str, dict[str, float]] = {}
  for member, values in zip(prepared, scores):
    times = member.runtimes[member.choice]
    row = {"opa": metrics.opa(times, values), "tau": metrics.kendall_tau(times, values),
           **{f"top{k}_slowdown": metrics.topk_slowdown(times, values, k) for k in (1, 10)}}
    if np.isfinite(list(row.values())).all():
      programs[member.name] = {name: round(value, 6) for name, value in row.items()}
  means = {name: round(float(np.mean([row[name] for row in programs.values()] or [0.0])), 4)
           for name in MEASURES}
  return {**means, "programs": programs}


def cell_of(path: pathlib.Path, config: run_config.RunConfig, seconds: float, valid_configs: int
            ) -> dict[str, Any]:
  """The stored result of a training, or that of a new one.

  Raises:
    RunDirectoryError: the file was written with other settings.
  """
  settings = {"hash": config_lib.stable_hash(config), "seconds": seconds,
              "valid_configs": valid_configs}
  if not path.exists():
    from experiments.scale import training
    budget = training.Budget(
        tuple(part * seconds for part in PARTS), valid_configs, count_first=False)
    files.write_json(path, {
        "settings": settings, "result": training.train(config, budget, measure)})
  stored = files.read_json(path)
  if stored["settings"] != settings:
    raise errors.RunDirectoryError(
        f"{path} was written with other settings; choose another --output, or delete the file")
  return stored["result"]


def summary(cells: Mapping[Cell, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
  """The figures of each cell.

  Args:
    cells: for each cell the results of `experiments.scale.training.train`, one for each seed.

  Returns:
    For each cell "model", "batch_size" and "segments", "steps" and "seconds" (of one training, the
    mean over seeds), and the "curve" of evaluations with "seconds", "steps", "train_loss" (the mean
    since the evaluation before), "train_opa", and each of `MEASURES` over programs. The values of
    the last evaluation are in the cell itself. Cells that are compared with the GNN have
    "opa_over_gnn" and "tau_over_gnn", paired by program.
  """
  results = []
  for (model, size, segments), runs in cells.items():
    curve = []
    for points in zip(*(run["curve"] for run in runs)):
      mean = lambda name, points=points: round(float(np.mean([point[name] for point in points])), 4)
      by_program = _over_seeds([point["programs"] for point in points])
      curve.append({
          "seconds": mean("seconds"), "steps": mean("steps"), "train_loss": mean("loss"),
          "train_opa": mean("train_opa"),
          **{name: _figure([row[name] for row in by_program.values()]) for name in MEASURES}})
    entry = {"model": model, "batch_size": size, "segments": segments, **curve[-1], "curve": curve}
    plain = cells.get(("gnn", size, segments))
    if plain and model != "gnn":
      ours, others = (_over_seeds([run["curve"][-1]["programs"] for run in several])
                      for several in (runs, plain))
      shared = sorted(ours.keys() & others.keys())
      entry.update({f"{name}_over_gnn": _figure(
          [ours[one][name] - others[one][name] for one in shared]) for name in ("opa", "tau")})
    results.append(entry)
  return results


def _over_seeds(runs: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
  """For each program of all runs the means of its values."""
  shared = set(runs[0]).intersection(*runs[1:])
  return {program: {name: float(np.mean([run[program][name] for run in runs]))
                    for name in MEASURES} for program in sorted(shared)}


def _figure(values: Sequence[float]) -> dict[str, float]:
  """Mean and standard deviation over programs."""
  if not values:
    return {"mean": 0.0, "sd": 0.0, "n": 0}
  return {"mean": round(float(np.mean(values)), 4),
          "sd": round(float(np.std(values, ddof=min(len(values) - 1, 1))), 4), "n": len(values)}


def table(results: Mapping[str, Any], model: str) -> str:
  """The cells of one model as a Markdown table."""
  rows = []
  for cell in results["cells"]:
    if cell["model"] != model:
      continue
    rows.append([
        str(cell["batch_size"]), cell["segments"], f"{cell['steps']:.0f}",
        f"{cell['train_loss']:.3f}", f"{cell['train_opa']:.3f}", _text(cell["opa"]),
        _text(cell["tau"]), *(f"{100 * cell[f'top{k}_slowdown']['mean']:.1f} %" for k in (1, 10)),
        *([_text(cell["tau_over_gnn"], "+.3f")] if "tau_over_gnn" in cell else [])])
  if not rows:
    return "Not measured yet.\n"
  headings = ["batch", "segments", "steps", "training loss", "training OPA", "OPA", "tau", "top-1",
              "top-10"]
  compared = len(rows[0]) > len(headings)
  return tables.markdown(headings + ["tau over the GNN"] if compared else headings, rows)


def gnn_table(results: Mapping[str, Any]) -> str:
  """The residual GNN."""
  return table(results, "gnn")


def attention_table(results: Mapping[str, Any]) -> str:
  """With attention over configurations."""
  return table(results, "gnn_attention")


def nodes_table(results: Mapping[str, Any]) -> str:
  """With attention over nodes."""
  return table(results, "gnn_nodes")


def curves_table(results: Mapping[str, Any]) -> str:
  """Training loss and OPA of each cell at each evaluation."""
  rows = []
  for cell in results["cells"]:
    rows.append([cell["model"], str(cell["batch_size"]), cell["segments"], *(
        f"{point['train_loss']:.3f} / {point['opa']['mean']:.3f}" for point in cell["curve"])])
  seconds = [f"{part * results['seconds']:g} s" for part in PARTS]
  return tables.markdown(["model", "batch", "segments", *seconds], rows)


def _text(figure: Mapping[str, float], form: str = ".3f") -> str:
  """Mean and standard error."""
  return f"{figure['mean']:{form}} ± {figure['sd'] / max(figure['n'], 1) ** 0.5:.3f}"


def draw(results: Mapping[str, Any], path: pathlib.Path) -> None:
  """Writes a figure of loss and OPA by CPU second: a column for each kind of segments.

  Raises:
    OutputError: the file cannot be written.
  """
  import matplotlib
  import matplotlib.figure
  kinds = list(dict.fromkeys(cell["segments"] for cell in results["cells"]))
  sizes = sorted({cell["batch_size"] for cell in results["cells"]})
  styles = dict(zip(sizes, itertools.cycle(["-", "--", ":"])))
  figure = matplotlib.figure.Figure(figsize=(9, 5.5), layout="constrained")
  axes = figure.subplots(2, len(kinds), squeeze=False, sharex=True, sharey="row")
  for cell in results["cells"]:
    column = axes[:, kinds.index(cell["segments"])]
    curve = cell["curve"]
    for axis, values in zip(column, (
        [point["train_loss"] for point in curve], [point["opa"]["mean"] for point in curve])):
      axis.plot([point["seconds"] for point in curve], values, styles[cell["batch_size"]],
                color=f"C{list(MODELS).index(cell['model'])}",
                label=f"{cell['model']}, batch {cell['batch_size']}")
  for axis, kind in zip(axes[0], kinds):
    axis.set_title(kind)
  for axis, name in zip(axes[:, 0], ("training loss", "OPA of validation programs")):
    axis.set_ylabel(name)
  for axis in axes[1]:
    axis.set_xlabel("CPU seconds of training")
  figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
  with matplotlib.rc_context({"svg.hashsalt": "tpugraphs_rank"}), files.atomic_write(path) as file:
    figure.savefig(file, format="svg", metadata={"Date": None})


def main(argv: Sequence[str]) -> int:
  """Runs the study."""
  del argv
  values = flags.FLAGS
  for what, chosen, known in (("model", values.models, MODELS),
                              ("kind of segments", values.segments, SEGMENTS)):
    for name in chosen:
      if name not in known:
        raise errors.UnknownNameError(
            f"unknown {what} {name!r}; expected one of: {', '.join(known)}")
  output, seeds = files.expanded(values.output), list(map(int, values.seeds))
  results: dict[str, Any] = {
      **run_directory.environment(), "seeds": seeds, "collection": values.collection,
      "seconds": values.seconds, "recipe": RECIPE, "settings": SETTINGS,
      "valid_configs": values.valid_configs, "cells": []}
  cells: dict[Cell, list[dict[str, Any]]] = {}
  # Whole comparisons first: every model and kind of segments before the next batch size.
  for size, segments, model in itertools.product(
      map(int, values.batches), values.segments, values.models):
    cell = (model, size, segments)
    cells[cell] = [
        cell_of(output / f"{model}.{size}.{segments}.{seed}.json",
                config_of(values.collection, cell, seed), values.seconds, values.valid_configs)
        for seed in seeds]
    results["cells"] = summary(cells)
    if values.results is not None:
      files.write_json(values.results, results)
  if values.figure is not None:
    draw(results, files.expanded(values.figure))
  for model in values.models:
    print(f"{model}\n\n{table(results, model)}")
  print(f"Training loss / OPA\n\n{curves_table(results)}")
  return 0


if __name__ == "__main__":
  app.run(main, define_flags)
