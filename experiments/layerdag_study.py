"""Trains, samples and judges LayerDAG on several divisions of real graphs, beside its variants.

  python -m experiments.layerdag_study --graphs kernels.npz --output runs/layerdag_study \\
    --results results/layerdag_tpu_tile.json

For each division by structure: a generator learns from the training graphs, graphs are sampled
under conditions drawn from those, and `tpugraphs_rank.cli.layerdag_evaluate` judges them with surrogates
that saw nothing else. Variants change one setting each. What is done is kept: run it again to go
on. Writes study.md and study.json into --output, and with --results the numbers of the main recipe.
"""

from collections.abc import Mapping
import concurrent.futures
import json
import pathlib
import subprocess
import sys
import time
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
# What each variant changes: flags of layerdag_train, and of layerdag_sample.
VARIANTS: Mapping[str, dict[str, list[str]]] = {
    MAIN: {},
    "operands_first": {"train": ["--direction=operands_first"]},
    "bidirectional": {"train": ["--encoder=bidirectional"]},
    "unconstrained": {"sample": ["--noconstrained"]},
    "no_guidance": {"sample": ["--guidance=1"]},
    "no_critic": {"sample": ["--tries=1", "--critic_graphs="]},
}
_SPANS = ("node_spans", "edge_spans")
_NAMES = {
    "pearson_synthetic": "Pearson on real test graphs, surrogates trained on made graphs only",
    "pearson_real": "the same, trained on real graphs",
    "pearson_shuffled": "the same, trained on made graphs, labels shuffled",
    "label_correlation": "label asked for and label predicted: correlation",
    "arity_valid_nodes": "nodes with a number of operands seen in training",
    "arity_valid_graphs": "graphs of such nodes only",
    "wasserstein_layers": "Wasserstein distance of the number of layers, to training graphs",
    "tv_opcode": "total variation of opcodes, to training graphs",
    "copies_of_training": "copies of training graphs, of 10 nodes or more",
    "distinct": "different graphs / graphs, of 10 nodes or more",
    "graphs_per_cpu_second": "graphs a CPU second, tracing included",
    "train_minutes": "minutes of training, one core of a busy machine"}
_WHOLE = ("graphs_per_cpu_second", "train_minutes")
# Of each division's report.
_KEPT = (*_NAMES, "spearman_synthetic", "spearman_real", "mae_synthetic", "mae_real",
         "two_sample_auc", "floor", "surrogates", "real")


# Defined only when this is the program: other apps use the same flag names.
def _define_flags() -> None:
  flags.DEFINE_string("graphs", None, "File of the real graphs.", required=True)
  flags.DEFINE_string("output", "runs/layerdag_study", "Folder of the runs and the report.")
  flags.DEFINE_string(
      "config", str(pathlib.Path(__file__).parent / "configs" / "layerdag_tpu_tile.json"),
      "JSON file with the settings of the generators.")
  flags.DEFINE_integer("divisions", 3, "Divisions of the graphs: seeds 0, 1, ...", lower_bound=1)
  flags.DEFINE_multi_enum("variants", [MAIN], list(VARIANTS), "What is compared, and on the first "
                          "division only, but for main.")
  flags.DEFINE_float("guidance", 2.0, "Of sampling.", lower_bound=0.0)
  flags.DEFINE_float("times", 3.0, "Graphs sampled for each training graph.", lower_bound=0.1)
  flags.DEFINE_integer("tries", 1, "Graphs drawn for each that is kept, by a critic that learns from "
                       "the training graphs.", lower_bound=1)
  flags.DEFINE_integer("node_spans", None, "Steps of the diffusion of nodes in sampling; otherwise "
                       "as in training.", lower_bound=1)
  flags.DEFINE_integer("edge_spans", None, "The same, of edges.", lower_bound=1)
  flags.DEFINE_integer("batch", 256, "Graphs sampled at a time.", lower_bound=1)
  flags.DEFINE_integer("seeds", 3, "Surrogates of each kind.", lower_bound=1)
  flags.DEFINE_integer("max_epochs", 150, "Of a surrogate.", lower_bound=1)
  flags.DEFINE_integer("jobs", 2, "Cases at a time.", lower_bound=1)
  flags.DEFINE_string("results", None, "Also write the numbers to this file.")


def case(folder: pathlib.Path, parts: Mapping[str, pathlib.Path], variant: str,
         values: flags.FlagValues) -> dict[str, Any]:
  """One variant on one division: what `layerdag_evaluate` says of it, and how long it trained."""
  change = VARIANTS[variant]
  # Sampling alone differs: the networks of the main recipe serve.
  run = folder / (variant if change.get("train") else MAIN) / "run"
  made, report = folder / variant / "made.npz", folder / variant / "report"
  timing = run.parent / "train_seconds.json"
  if not (run / "model.npz").exists():
    seconds = _command("layerdag_train", "--config", values.config, "--graphs", parts["train"],
                       "--valid_graphs", parts["valid"], "--run_dir", run,
                       *change.get("train", []))
    files.write_json(timing, seconds)
  if not made.exists():
    count = round(values.times * len(dags.load(parts["train"])))
    critic = ["--critic_graphs", parts["train"]] if values.tries > 1 else []
    _command("layerdag_sample", "--run_dir", run, "--count", count, "--output", made,
             f"--guidance={values.guidance}", "--seed=1", *critic,
             *(f"--{name}={values[name].value}" for name in ("tries", "batch", *_SPANS)
               if values[name].value is not None),
             *change.get("sample", []))
  if not (report / "results.json").exists():
    _command("layerdag_evaluate", *(f"--{split}={path}" for split, path in parts.items()),
             "--synthetic", made, "--output", report, "--seeds", values.seeds,
             "--max_epochs", values.max_epochs)
  found = files.read_json(report / "results.json")
  found["train_minutes"] = files.read_json(timing) / 60 if timing.exists() else None
  return found


def _command(name: str, *arguments: Any) -> float:
  """Runs one of our applications; returns the seconds it took."""
  started = time.monotonic()
  done = subprocess.run([sys.executable, "-m", f"experiments.{name}", *map(str, arguments)],
                        capture_output=True, text=True, stdin=subprocess.DEVNULL)
  if done.returncode:
    tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-8:])
    raise errors.TrainingError(f"{name} failed (exit status {done.returncode}):\n{tail}")
  return time.monotonic() - started


def joined(cases: list[Mapping[str, Any]]) -> dict[str, Any]:
  """The numbers of several divisions as one: means, and all surrogates together."""
  result: dict[str, Any] = {}
  for key, value in cases[0].items():
    numbers = [one.get(key) for one in cases]
    if isinstance(value, dict) and set(value) == {"mean", "sd", "n"}:
      name = key.rpartition("_")
      entries = [entry[name[0]] for one in cases for entry in one["surrogates"][name[2]]]
      result[key] = {"mean": float(np.mean(entries)), "sd": float(np.std(entries, ddof=1)),
                     "n": len(entries)}
    elif all(isinstance(number, (int, float)) for number in numbers):
      result[key] = float(np.mean(numbers))
  return result


def markdown(found: Mapping[str, Mapping[str, Any]]) -> str:
  """One row a measure, one column a variant."""
  return tables.markdown(["measure", *found], [
      [name, *(_cell(name, one.get(name)) for one in found.values())] for name in _NAMES])


def _cell(name: str, value: Any) -> str:
  if isinstance(value, dict):
    return f"{value['mean']:.3f} ± {value['sd']:.3f}"
  return "-" if value is None else f"{value:.{0 if name in _WHOLE else 3}f}"


def readme_table(results: Mapping[str, Any]) -> str:
  """The main recipe over all divisions, and each variant beside it on the first."""
  columns = {"all divisions": results, **{
      "first division" if name == MAIN else name.replace("_", " "): numbers
      for name, numbers in results["variants_on_division_0"].items()}}
  return tables.markdown(["", *columns], [
      [name, *(_cell(key, one.get(key)) for one in columns.values())]
      for key, name in _NAMES.items()])


def main(_) -> None:
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
      _command("layerdag_graphs", "--graphs", values.graphs, "--divide", "--seed", division,
               "--output", folder / "graphs.npz")
    names = [name for name in VARIANTS if name in (MAIN, *values.variants)]
    jobs += [(name, folder, parts) for name in (names if division == 0 else [MAIN])]
  # The main recipe first: variants of sampling use its networks.
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
  found = {name: joined(cases) for name, cases in done.items()}
  # Variants were run on the first division: so is what they stand beside.
  compared = {MAIN: joined(done[MAIN][:1])} | {
      name: numbers for name, numbers in found.items() if name != MAIN}
  results = {**run_directory.environment(), "divisions": values.divisions,
             "guidance": values.guidance, "times": values.times, "tries": values.tries,
             **{name: values[name].value for name in _SPANS},
             "real_graphs": pathlib.Path(values.graphs).name,
             "config": recipes.read(values.config), **found[MAIN],
             "each_division": [{key: one.get(key) for key in _KEPT} for one in done[MAIN]],
             "variants_on_division_0": compared}
  files.write_json(output / "study.json", results)
  text = ("All divisions\n\n" + markdown({MAIN: found[MAIN]})
          + ("\nThe first division\n\n" + markdown(compared) if len(compared) > 1 else ""))
  files.write_text(output / "study.md", text)
  if values.results:
    files.write_json(values.results, results)
  print(text)
  print(json.dumps({"written": [f"{output}/study.md", f"{output}/study.json", values.results]}))


if __name__ == "__main__":
  _define_flags()
  app.run(main)
