"""Which training rules learn large layout programs by CPU second?

  python -m experiments.scale_study --output build/scale --results results/scale_study.json

The test-bed has real programs of full-size models, exported without weights and without running
anything (`scale.programs`), with random layouts whose runtimes are simulated (`scale.labels`).
Programs are split by model family: training families teach, validation families judge, and the
families of the test split are not read. Evaluations follow CPU seconds of training, not wall time.

The study keeps what it has written: run it again to continue.
"""

from collections.abc import Mapping, Sequence
import os
import pathlib
import subprocess
from typing import Any

from absl import flags
import numpy as np

from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import recipes
from tpugraphs_rank import run_config
from tpugraphs_rank import tables
from tpugraphs_rank.cli import app
from tpugraphs_rank.collect import environment
from tpugraphs_rank.data import registry
from tpugraphs_rank.training import run_directory

RECIPE = "layout_xla_random"
_ROOT = pathlib.Path(__file__).resolve().parent.parent

# The settings of the recipe before this study.
BEFORE: dict[str, Any] = {
    "batch_size": 8, "max_configs": 16, "lists_per_graph": 8, "segment_mode": "backprop",
    "max_nodes": 1000, "hidden_width": 32, "mlp_layers": 2, "aggregation": "symmetric",
    "head_widths": [32], "l2_regularization": 0.0001, "learning_rate": 0.001,
    "warmup_steps": 50, "layout_join": "add", "layout_scale": 1.0, "layout_extents": False}
_WHOLE = {**BEFORE, "batch_size": 1, "segment_mode": "full"}
_RATE = {**_WHOLE, "learning_rate": 0.003}
_SIZED = {**_RATE, "layout_join": "sized"}
_SCALED = {**_SIZED, "layout_scale": 10.0}
_EXTENTS = {**_SCALED, "layout_extents": True}
_PUBLIC = {**BEFORE, "model": "public_rule", "batch_size": 16, "max_configs": 10,
           "clip_norm": 0.01, "warmup_steps": 0}
# Each of the first six adds one change to the one before it.
RULES: dict[str, dict[str, Any]] = {
    "before": BEFORE, "whole": _WHOLE, "rate": _RATE, "sized": _SIZED, "scaled": _SCALED,
    "extents": _EXTENTS,
    "no_warmup": {**_EXTENTS, "warmup_steps": 0},
    "public": _PUBLIC,
    "public_norm": {**_PUBLIC, "model_options": {"norm": True}},
}
_PUBLIC_MODEL = "public_rule"
# Three fifths of a measured program's configurations teach, and others judge.
_NEW_CONFIGURATIONS: dict[str, Any] = {
    "split_by": "configuration", "train_fraction": 0.6, "valid_fraction": 0.3}


def define_flags() -> None:
  """Defines the flags."""
  flags.DEFINE_string("output", "build/scale", "Folder of programs, collections and cases.")
  flags.DEFINE_string("results", None, "Writes the figures to this JSON file.")
  flags.DEFINE_list("rules", list(RULES), f"Rules to train, among {', '.join(RULES)}.")
  flags.DEFINE_list("seeds", ["0"], "Seeds of the trainings.")
  flags.DEFINE_list("seconds", ["6", "20"], "CPU seconds of the evaluations.")
  flags.DEFINE_list("public_seconds", ["6", "20", "60"], "The same for the public rule.")
  flags.DEFINE_integer("programs", 20, "Maximum number of programs.", lower_bound=3)
  flags.DEFINE_integer("configurations", 300, "Configurations of each program.", lower_bound=10)
  flags.DEFINE_string("graph", None, "A measured layout graph (.npz): rules are also compared on "
                      "new configurations of this program.")
  flags.DEFINE_list("graph_rules", ["before", "scaled", "extents"], "Rules to compare on --graph.")
  flags.DEFINE_list("nodes", ["1000", "5000"], "Least and most nodes of a program.")


def export(folder: pathlib.Path) -> None:
  """Exports all programs in the collector's environment.

  Raises:
    OutputError: the environment cannot be made, or the export failed.
  """
  with environment.process_variables() as variables:
    path = os.pathsep.join([variables["PYTHONPATH"], str(_ROOT)])
    status = subprocess.run(
        [str(environment.python()), "-m", "experiments.scale.programs", "--output", str(folder)],
        env={**variables, "PYTHONPATH": path}, check=False).returncode
  if status:
    raise errors.OutputError(f"exporting the programs ended with status {status} (its messages are "
                             "above); run the same command again")


def one_program(path: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
  """Writes a collection of one measured program; returns its descriptor's path."""
  target = folder / "npz" / path.name
  if not target.exists():
    files.copy(path, target)
  files.write_json(folder / "collection.json", {
      "name": "layout:one:program", "kind": "layout", "target": "tpu_v3", "path": "npz",
      "splits": {registry.WHOLE: 1}, "files": {registry.WHOLE: [path.name]},
      "has_runtimes": {registry.WHOLE: True}})
  return folder / "collection.json"


def config_of(collection: str, rule: Mapping[str, Any], seed: int) -> run_config.RunConfig:
  """The configuration of a rule's training: the recipe with the rule's changes.

  Args:
    collection: path of the descriptor.
    rule: settings by name.
    seed: of the training.
  """
  base = config_lib.from_dict(
      run_config.RunConfig, recipes.read(RECIPE), source=RECIPE)
  changes = {"collection": collection, "seed": seed, "schedule": "constant",
             "validation_configs": "all", "duplicates": "keep", **rule}
  return config_lib.override_by_flag(base, changes)


def case(path: pathlib.Path, config: run_config.RunConfig, seconds: Sequence[float]
         ) -> dict[str, Any]:
  """The stored curve of a training, or that of a new one.

  Raises:
    RunDirectoryError: the file was written with other settings.
  """
  settings = {"hash": config_lib.stable_hash(config), "seconds": list(seconds)}
  if not path.exists():
    from experiments.scale import training
    result = training.train(config, training.Budget(tuple(seconds)))
    files.write_json(path, {"settings": settings, "result": result})
  stored = files.read_json(path)
  if stored["settings"] != settings:
    raise errors.RunDirectoryError(
        f"{path} was written with other settings; choose another --output, or delete the file")
  return stored["result"]


def summary(cases: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
  """For each rule the figures over seeds of each evaluation.

  Args:
    cases: for each rule the results of `training.train`, one for each seed.
  """
  results: dict[str, Any] = {}
  for rule, runs in cases.items():
    curve = []
    for points in zip(*(run["curve"] for run in runs)):
      curve.append({"seconds": points[-1]["seconds"], **{
          name: _figure([point[name] for point in points])
          for name in points[0] if name != "seconds"}})
    results[rule] = {"steps_per_second": _figure([run["steps_per_second"] for run in runs]),
                     "curve": curve}
  return results


def _figure(values: Sequence[float]) -> dict[str, float]:
  return {"mean": round(float(np.mean(values)), 4),
          "sd": round(float(np.std(values, ddof=min(len(values) - 1, 1))), 4), "n": len(values)}


def table(results: Mapping[str, Any]) -> str:
  """Tau and slowdowns of each rule by CPU second, as Markdown; ± between seeds, if several."""
  rules = results["rules"]
  curves = [rule["curve"] for rule in rules.values()]
  longest = max(curves, key=len)
  rows = []
  for name, rule in rules.items():
    curve = rule["curve"]
    taus = [_cell(point["tau"]) for point in curve]
    rows.append([
        name, f"{rule['steps_per_second']['mean']:.1f}", *taus,
        *[""] * (len(longest) - len(curve)), _cell(curve[-1]["train_tau"]),
        *(f"{100 * curve[-1][f'top{k}_slowdown']['mean']:.1f} %" for k in (1, 10))])
  # An evaluation follows the step that passes its time; long steps pass it by a second.
  passed = [min(curve[place]["seconds"] for curve in curves if place < len(curve))
            for place in range(len(longest))]
  seconds = [f"tau, {int(least)} s" for least in passed]
  return tables.markdown(
      ["rule", "steps a second", *seconds, "tau in training", "top-1", "top-10"], rows)


def _cell(figure: Mapping[str, float]) -> str:
  deviation = f" ± {figure['sd']:.3f}" if figure["n"] > 1 else ""
  return f"{figure['mean']:.3f}{deviation}"


def program_table(results: Mapping[str, Any]) -> str:
  """The same for new configurations of one measured program."""
  return table(results["one_program"])


def main(argv: Sequence[str]) -> int:
  """Runs the study."""
  del argv
  values = flags.FLAGS
  for rule in (*values.rules, *values.graph_rules):
    if rule not in RULES:
      raise errors.UnknownNameError(
          f"unknown rule {rule!r}; expected one of: {', '.join(RULES)}")
  from experiments.scale import labels
  from experiments.scale import public_rule  # noqa: F401  Registers the model.
  output = files.expanded(values.output)
  least, most = map(int, values.nodes)
  export(output / "hlo")
  name = f"{values.programs}_{least}_{most}_{values.configurations}"
  collection = labels.write(output / "hlo", output / name, values.configurations, least, most,
                            values.programs, seed=0)
  seeds = list(map(int, values.seeds))
  seconds = [list(map(float, listed)) for listed in (values.seconds, values.public_seconds)]
  results = {**run_directory.environment(), "seeds": seeds, "recipe": RECIPE,
             "settings": {rule: RULES[rule] for rule in values.rules},
             "rules": _compared(collection, values.rules, seeds, seconds, {})}
  if values.graph is not None:
    path = files.expanded(values.graph)
    one = one_program(path, output / path.stem)
    results["one_program"] = {"graph": path.stem, "rules": _compared(
        one, values.graph_rules, seeds, seconds, _NEW_CONFIGURATIONS)}
  if values.results is not None:
    files.write_json(values.results, results)
  print(table(results))
  if values.graph is not None:
    print(program_table(results))
  return 0


def _compared(collection: pathlib.Path, rules: Sequence[str], seeds: Sequence[int],
              seconds: Sequence[Sequence[float]], changes: Mapping[str, Any]) -> dict[str, Any]:
  """The figures of rules on a collection, from the cases next to its descriptor.

  Args:
    collection: path of the descriptor.
    rules: their names.
    seeds: of the trainings.
    seconds: CPU seconds of the evaluations, and those of the public rule.
    changes: further settings.
  """
  cases = {}
  for rule in rules:
    configs = [config_of(str(collection), {**RULES[rule], **changes}, seed) for seed in seeds]
    public = configs[0].model.model == _PUBLIC_MODEL
    cases[rule] = [case(collection.parent / "cases" / f"{rule}.{config.training.seed}.json",
                        config, seconds[public]) for config in configs]
  return summary(cases)


if __name__ == "__main__":
  app.run(main, define_flags)
