"""Trains, samples and evaluates LayerDAG and its variants on several splits of real graphs.

  python -m experiments.layerdag_study --graphs kernels.npz --output runs/layerdag_study \\
    --results results/layerdag_tpu_tile.json

For each split by structure, a generator learns from the training graphs, graphs are generated under
conditions sampled from them, and `tpugraphs-rank layerdag evaluate` trains surrogates on the
generated graphs alone. Each variant changes one setting. The study keeps finished steps: run it
again to continue. It writes study.md and study.json to --output, and the figures of the main recipe
to --results.
"""

from collections.abc import Mapping, Sequence
import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

from absl import flags
import numpy as np
import tqdm

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import folder_settings
from tpugraphs_rank import recipes
from tpugraphs_rank import tables
from tpugraphs_rank.cli import app
from tpugraphs_rank.synthesis.dags import dags
from tpugraphs_rank.training import run_directory

MAIN = "main"
# The flags that each variant adds to `layerdag train` and `layerdag sample`.
VARIANTS: Mapping[str, dict[str, list[str]]] = {
    MAIN: {},
    "operands_first": {"train": ["--direction=operands_first"]},
    "bidirectional": {"train": ["--encoder=bidirectional"]},
    "unconstrained": {"sample": ["--noconstrained"]},
    "no_guidance": {"sample": ["--guidance=1"]},
    "no_critic": {"sample": ["--tries=1", "--critic_graphs="]},
}
_SPANS = ("node_spans", "edge_spans")
# The distances to test graphs in the table, each followed by that of the training graphs.
_DISTANCES = {
    "wasserstein_layers": "Wasserstein distance of the number of layers",
    "wasserstein_operands": "Wasserstein distance of the operands of a node",
    "wasserstein_users": "Wasserstein distance of the users of a node",
    "tv_opcode": "total variation of opcodes",
    "tv_opcode_pairs": "total variation of opcodes of a node and its operand"}
_NAMES = {
    "pearson_synthetic": "Pearson on real test graphs, surrogates trained on synthetic graphs only",
    "pearson_real": "the same, trained on real graphs",
    "pearson_shuffled": "the same, trained on synthetic graphs, labels shuffled",
    "forest_pearson_synthetic": "Pearson on real test graphs, random forests trained on synthetic "
                                "graphs only",
    "forest_pearson_real": "the same, trained on real graphs",
    "forest_pearson_shuffled": "the same, trained on synthetic graphs, labels shuffled",
    "label_correlation": "correlation of requested labels with those that surrogates predict",
    "forest_label_correlation": "the same, random forests",
    "arity_valid_nodes": "nodes with a number of operands that occurs in training",
    "arity_valid_graphs": "graphs with only such nodes",
    **{key: text for name, title in _DISTANCES.items() for key, text in (
        (f"{name}_to_test", f"{title}, to test graphs"),
        (f"{name}_floor", "the same, training graphs to test graphs"))},
    "copies_of_training": "copies of training graphs, with 10 nodes or more",
    "distinct": "distinct graphs / graphs, with 10 nodes or more",
    "graphs_per_cpu_second": "graphs per CPU second, including tracing",
    "graphs_per_cpu_second_with_critic": "graphs per CPU second, including the critic's training",
    "train_cpu_minutes": "CPU minutes of the generator's training"}
# Decimals of the figures that have fewer than three.
_DECIMALS = {"graphs_per_cpu_second": 0, "graphs_per_cpu_second_with_critic": 0,
             "train_cpu_minutes": 1}
# Figures that are kept of the evaluation of each split.
_KEPT = (*_NAMES, *_DISTANCES, "spearman_synthetic", "spearman_real", "mae_synthetic", "mae_real",
         "two_sample_auc", "floor", "surrogates", "forests", "real")


def define_flags() -> None:
  """Defines the flags."""
  flags.DEFINE_string("graphs", None, "File of the real graphs.", required=True)
  flags.DEFINE_string("output", "runs/layerdag_study", "Folder of the runs and the report.")
  flags.DEFINE_string("config", "layerdag_tpu_tile", "Recipe or JSON file with the settings of the "
                      "generators.")
  flags.DEFINE_integer("divisions", 3, "Number of splits of the graphs: seeds 0, 1, ...",
                       lower_bound=1)
  flags.DEFINE_multi_enum("variants", [MAIN], list(VARIANTS), "Variants to compare; all but main "
                          "run on the first split only.")
  flags.DEFINE_float("guidance", 2.0, "Guidance of sampling.", lower_bound=0.0)
  flags.DEFINE_float("times", 3.0, "Generated graphs per training graph.", lower_bound=0.1)
  flags.DEFINE_integer("tries", 1, "Candidates for each generated graph, from which a critic "
                       "that is trained on the training graphs selects.", lower_bound=1)
  flags.DEFINE_integer("node_spans", None, "Diffusion spans for nodes in sampling. Default: as in "
                       "training.", lower_bound=1)
  flags.DEFINE_integer("edge_spans", None, "Diffusion spans for edges in sampling. Default: as in "
                       "training.", lower_bound=1)
  flags.DEFINE_integer("batch", 256, "Graphs generated at a time.", lower_bound=1)
  flags.DEFINE_integer("seeds", 3, "Number of surrogates of each kind.", lower_bound=1)
  flags.DEFINE_integer("max_epochs", 150, "Maximum epochs of a surrogate.", lower_bound=1)
  flags.DEFINE_integer("jobs", 2, "Cases that run at the same time.", lower_bound=1)
  flags.DEFINE_string("results", None, "Also write the figures to this file.")


def case(folder: pathlib.Path, parts: Mapping[str, pathlib.Path], variant: str,
         values: flags.FlagValues) -> dict[str, Any]:
  """One variant on one split: the result of `layerdag evaluate`, and the CPU time of training.

  The distances in the table are at the top level: NAME_to_test and, for the training graphs,
  NAME_floor.
  """
  change = VARIANTS[variant]
  # Variants that change only the sampling use the networks of the main recipe.
  run = folder / (variant if change.get("train") else MAIN) / "run"
  generated, report = folder / variant / "synthetic.npz", folder / variant / "report"
  timing = run.parent / "train_cpu_seconds.json"
  if not (run / "model.npz").exists():
    seconds = _command("train", "--config", values.config, "--graphs", parts["train"],
                       "--valid_graphs", parts["valid"], "--run_dir", run,
                       *change.get("train", []))
    files.write_json(timing, seconds)
  if not generated.exists():
    count = round(values.times * len(dags.load(parts["train"])))
    critic = ["--critic_graphs", parts["train"]] if values.tries > 1 else []
    _command("sample", "--run_dir", run, "--count", count, "--output", generated,
             f"--guidance={values.guidance}", "--seed=1", *critic,
             *(f"--{name}={values[name].value}" for name in ("tries", "batch", *_SPANS)
               if values[name].value is not None),
             *change.get("sample", []))
  if not (report / "results.json").exists():
    _command("evaluate", *(f"--{split}={path}" for split, path in parts.items()),
             "--synthetic", generated, "--output", report, "--seeds", values.seeds,
             "--max_epochs", values.max_epochs)
  results = files.read_json(report / "results.json")
  results["train_cpu_minutes"] = files.read_json(timing) / 60 if timing.exists() else None
  for distance in _DISTANCES:
    results[f"{distance}_to_test"] = float(np.mean(
        [sample["to_test"][distance] for sample in results["samples"]]))
    results[f"{distance}_floor"] = results["floor"]["test_to_training"][distance]
  return results


def _command(name: str, *arguments: Any) -> float:
  """Runs `tpugraphs-rank layerdag NAME` in a separate process; returns its CPU seconds.

  They include all threads and, unlike the time of a clock, hardly depend on what else the machine
  does.
  """
  with tempfile.TemporaryFile() as output:
    process = subprocess.Popen(
        [sys.executable, "-m", "tpugraphs_rank.cli", "layerdag", name, *map(str, arguments)],
        stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    # Several commands may run at the same time: only this call gives the usage of one.
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    output.seek(0)
    text = output.read().decode(errors="replace")
  if process.returncode:
    tail = "\n".join(text.strip().splitlines()[-8:])
    raise errors.TrainingError(
        f"layerdag {name} failed (exit status {process.returncode}):\n{tail}")
  return usage.ru_utime + usage.ru_stime


def joined(cases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Combines the figures of several splits: means, and statistics over all surrogates together."""
  result: dict[str, Any] = {}
  for key, value in cases[0].items():
    numbers: list[Any] = [one.get(key) for one in cases]
    if isinstance(value, dict) and set(value) == {"mean", "sd", "n"}:
      forest = key.startswith("forest_")
      measure, _, source = key.removeprefix("forest_").rpartition("_")
      entries = [entry[measure] for one in cases
                 for entry in one["forests" if forest else "surrogates"][source]]
      result[key] = {"mean": float(np.mean(entries)), "sd": float(np.std(entries, ddof=1)),
                     "n": len(entries)}
    elif all(isinstance(number, (int, float)) for number in numbers):
      result[key] = float(np.mean(numbers))
  return result


def markdown(variants: Mapping[str, Mapping[str, Any]]) -> str:
  """One row per measure, one column per variant."""
  return tables.markdown(["measure", *variants], [
      [name, *(_cell(name, one.get(name)) for one in variants.values())] for name in _NAMES])


def _cell(name: str, value: Any) -> str:
  if isinstance(value, dict):
    return f"{value['mean']:.3f} ± {value['sd']:.3f}"
  return "-" if value is None else f"{value:.{_DECIMALS.get(name, 3)}f}"


def readme_table(results: Mapping[str, Any]) -> str:
  """The main recipe over all splits, and each variant on the first split."""
  columns = {"all divisions": results, **{
      "first division" if name == MAIN else name.replace("_", " "): numbers
      for name, numbers in results["variants_on_division_0"].items()}}
  return tables.markdown(["", *columns], [
      [name, *(_cell(key, one.get(key)) for one in columns.values())]
      for key, name in _NAMES.items()])


def main(argv: list[str]) -> None:
  """Runs the study."""
  values = flags.FLAGS
  output = pathlib.Path(values.output)
  graphs = dags.load(values.graphs)
  folder_settings.check(output, {
      "graphs": dags.digest(graphs),
      "config": recipes.read(values.config), **{
          name: values[name].value
          for name in ("guidance", "times", "tries", *_SPANS, "batch", "seeds", "max_epochs")}})
  jobs = []
  for division in range(values.divisions):
    folder = output / f"division{division}"
    parts = {split: folder / f"graphs_{split}.npz" for split in ("train", "valid", "test")}
    if not all(path.exists() for path in parts.values()):
      _command("graphs", "--graphs", values.graphs, "--divide", "--seed", division,
               "--output", folder / "graphs.npz")
    names = [name for name in VARIANTS if name in (MAIN, *values.variants)]
    jobs += [(name, folder, parts) for name in (names if division == 0 else [MAIN])]
  # The main recipe runs first, because variants of sampling use its networks.
  reports: dict[int, dict[str, Any]] = {}
  with concurrent.futures.ThreadPoolExecutor(values.jobs) as pool:
    with tqdm.tqdm(total=len(jobs), desc="cases", disable=None) as bar:
      for is_main in (True, False):
        futures = {pool.submit(case, folder, parts, name, values): place
                   for place, (name, folder, parts) in enumerate(jobs)
                   if (name == MAIN) == is_main}
        for future in concurrent.futures.as_completed(futures):
          reports[futures[future]] = future.result()
          bar.update()
  done: dict[str, list[dict[str, Any]]] = {}
  for place, (name, _, _) in enumerate(jobs):
    done.setdefault(name, []).append(reports[place])
  figures = {name: joined(cases) for name, cases in done.items()}
  # Variants ran on the first split only, so they are compared with the main recipe on that split.
  compared = {MAIN: joined(done[MAIN][:1])} | {
      name: numbers for name, numbers in figures.items() if name != MAIN}
  results = {**run_directory.environment(), "divisions": values.divisions,
             "seeds": list(range(values.seeds)),
             "guidance": values.guidance, "times": values.times, "tries": values.tries,
             **{name: values[name].value for name in _SPANS},
             "real_graphs": pathlib.Path(values.graphs).name,
             "config": recipes.read(values.config), **figures[MAIN],
             "each_division": [{key: one.get(key) for key in _KEPT} for one in done[MAIN]],
             "variants_on_division_0": compared}
  files.write_json(output / "study.json", results)
  text = ("All splits\n\n" + markdown({MAIN: figures[MAIN]})
          + ("\nThe first split\n\n" + markdown(compared) if len(compared) > 1 else ""))
  files.write_text(output / "study.md", text)
  if values.results:
    files.write_json(values.results, results)
  print(text)
  print(json.dumps({"written": [f"{output}/study.md", f"{output}/study.json", values.results]}))


if __name__ == "__main__":
  app.run(main, define_flags)
