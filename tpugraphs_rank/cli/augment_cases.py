"""The trainings of a study of synthetic programs, several in each process.

A case is one short training, evaluated on held-out programs. Its result is one small file. Finished
cases are kept; an interrupted case starts from scratch.

This is not a command of its own: `tpugraphs-rank augment` and `experiments.augmentation_study` plan
the cases and start processes of

  python -m tpugraphs_rank.cli.augment_cases --cases cases.json --output runs/augmentation
"""

from collections.abc import Mapping, Sequence
import concurrent.futures
import dataclasses
import hashlib
import pathlib
import sys
import tempfile
import time
from typing import Any

from absl import flags
import tqdm

from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import folder_settings
from tpugraphs_rank import json_shapes
from tpugraphs_rank import recipes
from tpugraphs_rank import run_config
from tpugraphs_rank import termination
from tpugraphs_rank.cli import app
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import mixing
from tpugraphs_rank.data import registry
from tpugraphs_rank.synthesis.augment import gains
from tpugraphs_rank.training import parallel

SYNTHETIC = "synthetic"
LAYERDAG = "layerdag"
# How training uses synthetic programs; `synthesis.augment.strategies` implements them.
STRATEGIES = ("measured", "distilled", "pretrained", "auxiliary", "selfsupervised",
              "selfsupervised_measured")
# Fewer seeds show next to nothing about how much trainings vary.
FEW_SEEDS = 5
_KEPT = ("graph", "family", "seen", *gains.METRICS.values())


@dataclasses.dataclass(frozen=True)
class Arm:
  """A way to train.

  Attributes:
    source: the synthetic collection to use; None: none.
    oversampled: without a source, whether real lists replace the synthetic ones.
    changes: settings in addition to those of all arms.
    strategy: how training uses synthetic programs; see `synthesis.augment.strategies`.
    matched: whether it uses as many synthetic programs as the smallest source, instead of all
      programs of its source.
  """

  source: str | None = None
  oversampled: bool = False
  changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  strategy: str = "measured"
  matched: bool = False


ARMS: Mapping[str, Arm] = {
    gains.REAL: Arm(),
    gains.OVERSAMPLED: Arm(oversampled=True),
    SYNTHETIC: Arm(SYNTHETIC),
    **{f"{SYNTHETIC}_{name}": Arm(SYNTHETIC, strategy=name) for name in STRATEGIES[1:]},
    LAYERDAG: Arm(LAYERDAG),
    gains.MATCHED: Arm(LAYERDAG, matched=True),
    gains.RANDOM: Arm(gains.RANDOM, matched=True),
    gains.TEMPLATES: Arm(gains.TEMPLATES, matched=True),
    "layerdag_shuffled": Arm(LAYERDAG, changes={"augment.synthetic_shuffled": True}),
    "layerdag_distilled": Arm(LAYERDAG, strategy="distilled"),
    "layerdag_pretrained": Arm(LAYERDAG, strategy="pretrained"),
    "layerdag_auxiliary": Arm(LAYERDAG, strategy="auxiliary"),
    "real_auxiliary": Arm(oversampled=True, strategy="auxiliary"),
    "layerdag_selfsupervised": Arm(LAYERDAG, strategy="selfsupervised"),
    "real_selfsupervised": Arm(oversampled=True, strategy="selfsupervised"),
    "layerdag_selfsupervised_measured": Arm(LAYERDAG, strategy="selfsupervised_measured"),
    "layerdag_only": Arm(LAYERDAG, changes={"augment.synthetic_share": 1.0}),
}


@dataclasses.dataclass(frozen=True)
class Settings:
  """What all cases of a task share.

  Attributes:
    base: the settings of the trainings; arm, budget and seed change some of them.
    sources: for each name of `Arm.source` the collection, or the path of its descriptor.
    split: the split to evaluate on.
    matched: number of synthetic programs in the matched arms; None: all programs of their source.
  """

  base: run_config.RunConfig
  sources: Mapping[str, str]
  split: str = "test"
  matched: int | None = None


def recipe(collection: str, path: str | None, epochs: int, steps_per_epoch: int,
           changes: Mapping[str, Any]) -> run_config.RunConfig:
  """A short training of one network on a collection.

  Args:
    collection: name, or path of a descriptor.
    path: recipe (by name) or settings file; None: the recipe of the bundled collection of that
      kind.
    epochs, steps_per_epoch: the length of a training. There is no early stopping, so that all
      trainings have the same number of steps.
    changes: further settings, by dotted name.
  """
  if path is None:
    kind = registry.get_collection(collection).kind
    path = "tile_xla_cpu" if kind == "tile" else "layout_xla_cpu_mixed"
  base = config_lib.from_dict(run_config.RunConfig, recipes.read(path), source=path)
  return config_lib.override(base, {
      "data.collection": collection, "model.members": 1, "training.tensorboard": False,
      "training.epochs": epochs, "training.patience": epochs, "training.validate_every": 1,
      "training.steps_per_epoch": steps_per_epoch, **changes}, source="flags")


def equal_numbers(settings: Settings) -> Settings:
  """Gives matched arms as many synthetic programs as the smallest source has, unless set."""
  if settings.base.augment.synthetic_graphs is not None or not settings.sources:
    return settings
  return dataclasses.replace(settings, matched=min(
      len(_training_files(source)) for source in settings.sources.values()))


def plan(tasks: Mapping[str, Settings], budgets: Sequence[int | None], arms: Sequence[str],
         seeds: Sequence[int]) -> list[dict[str, Any]]:
  """The cases as JSON values: seed by seed, all arms of a seed one after the other.

  A task skips the arms whose source it does not have.

  Args:
    tasks: the settings of each task, by name.
    budgets: numbers of real training programs; None: all.
    arms: names in ARMS.
    seeds: each seed determines the real programs (the same for all arms), the weights and the
      synthetic programs.

  Raises:
    ConfigError: a budget is larger than the training split.
    CompatibilityError: a source does not fit its task, see `mixing.training_split`.
  """
  cases = []
  for task, settings in tasks.items():
    for source in settings.sources.values():
      mixing.training_split(registry.get_collection(settings.base.data.collection),
                            registry.get_collection(source),
                            settings.base.augment.synthetic_any_target)
    digests = {name: digest(source) for name, source in settings.sources.items()}
    whole = len(_training_files(settings.base.data.collection, settings.base.data.data_root))
    for budget in budgets:
      if budget is not None and budget > whole:
        raise errors.ConfigError(
            f"a budget of {budget} programs: {task} has only {whole} training programs; use a "
            "smaller budget, or none for all programs")
    for seed in seeds:
      for budget in budgets:
        for name in arms:
          arm = ARMS[name]
          if arm.source is not None and arm.source not in settings.sources:
            continue
          config = _config_of(settings, arm, budget, seed)
          folder = f"{task.replace(':', '_')}/{'all' if budget is None else budget}"
          cases.append({
              "name": f"{folder}/{name}/seed{seed}", "task": task,
              "budget": whole if budget is None else budget, "arm": name, "subset": seed,
              "split": settings.split, "source": digests.get(arm.source or ""),
              "strategy": arm.strategy,
              "config": config_lib.to_dict(config)})
  return cases


def _config_of(settings: Settings, arm: Arm, budget: int | None, seed: int
               ) -> run_config.RunConfig:
  """The settings of one case."""
  base = settings.base
  changes: dict[str, Any] = {"data.max_graphs": budget, "training.seed": seed, **arm.changes}
  if arm.source is not None:
    changes["augment.synthetic"] = settings.sources[arm.source]
    if arm.matched and settings.matched is not None:
      changes["augment.synthetic_graphs"] = settings.matched
  elif not arm.oversampled:
    # Only the real lists of a step of the other arms.
    synthetic = max(round(base.augment.synthetic_share * base.batch.batch_size), 1)
    changes["batch.batch_size"] = max(base.batch.batch_size - synthetic, 1)
  if arm.source is None:
    # Without synthetic programs these settings have no effect and must not distinguish cases.
    changes["augment.synthetic_graphs"] = None
  return config_lib.override(base, changes, source="plan of cases")


def _training_files(source: str, data_root: str | None = None) -> list[pathlib.Path]:
  collection = registry.get_collection(source)
  split = "train" if "train" in collection.splits else registry.WHOLE
  paths, missing = collections.find_files(collection, split, data_root)
  if missing:
    raise collections.missing_error(collection, split, missing[0], data_root)
  return paths


def digest(source: str) -> str:
  """A hash of the names and contents of a collection's training files: 16 hex digits."""
  value = hashlib.sha256()
  for path in _training_files(source):
    value.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
  return value.hexdigest()[:16]


# ---- running -------------------------------------------------------------------------------------


def _path(output: pathlib.Path, case: Mapping[str, Any]) -> pathlib.Path:
  return output / "cases" / f"{case['name']}.json"


def _stored(path: pathlib.Path) -> dict[str, Any]:
  """The result of a case.

  Raises:
    DataError: it is damaged.
  """
  numbers = dict.fromkeys(("seconds", "cpu_seconds", "steps", "real_programs",
                           "synthetic_programs", "held_back", "best_epoch"), float)
  return json_shapes.read(path, {
      "case": {"config": dict}, "training": {
          **numbers, "steps_before?": float, "pretraining?": dict}, "rows": [
          {**dict.fromkeys(_KEPT, (float, str, bool, None)), "graph": str}]},
      "delete it to train again")


def is_done(output: pathlib.Path, case: Mapping[str, Any]) -> bool:
  """Whether the case has its result.

  Raises:
    RunDirectoryError: the result is from other settings or other synthetic programs.
  """
  path = _path(output, case)
  if not path.exists():
    return False
  stored = _stored(path)["case"]
  ours, theirs = (config_lib.from_dict(run_config.RunConfig, one["config"], source=str(path))
                  for one in (stored, case))
  # The path of the synthetic programs does not matter; their content does, see `digest`.
  without = lambda config: config_lib.override(config, {"augment.synthetic": None})
  folder_settings.refuse_if_different(path, [
      *config_lib.differences(without(ours), without(theirs)),
      *folder_settings.differences(stored, case, ("split", "source"))])
  return True


def run_all(cases: Sequence[Mapping[str, Any]], output: pathlib.Path, jobs: int,
            at_a_time: int = 12) -> None:
  """Runs the cases that have no result yet.

  Args:
    cases: the cases, as `plan` returns them.
    output: folder of the results.
    jobs: number of processes that run at the same time.
    at_a_time: maximum cases per process. TensorFlow starts once for them.

  Raises:
    TrainingError: a process failed; the finished cases are kept.
  """
  for left in output.glob(".cases*.json"):  # By a killed process.
    left.unlink(missing_ok=True)
  waiting = [case for case in cases if not is_done(output, case)]
  size = max(min(at_a_time, -(-len(waiting) // jobs)), 1)
  parts = [waiting[start:start + size] for start in range(0, len(waiting), size)]
  processes = parallel.Processes()
  with tqdm.tqdm(total=len(cases), initial=len(cases) - len(waiting), unit="case",
                 desc="training", disable=None) as bar, termination.sigterm_raises():
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
      futures = {pool.submit(_run_process, part, output, number, processes)
                 for number, part in enumerate(parts)}
      try:
        while futures:
          done, futures = concurrent.futures.wait(
              futures, timeout=5, return_when=concurrent.futures.FIRST_COMPLETED)
          bar.update(sum(_path(output, case).exists() for case in cases) - bar.n)
          for future in done:
            future.result()
      except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        processes.end()
        raise


def _run_process(cases: Sequence[Mapping[str, Any]], output: pathlib.Path, number: int,
                 processes: parallel.Processes) -> None:
  listed = output / f".cases{number}.json"
  files.write_json(listed, list(cases))
  try:
    status, text = processes.run([
        sys.executable, "-m", "tpugraphs_rank.cli.augment_cases", "--cases", str(listed),
        "--output", str(output)])
  finally:
    listed.unlink(missing_ok=True)
  if status:
    tail = "\n".join(text.strip().splitlines()[-8:])
    raise errors.TrainingError(f"cases failed (exit status {status}):\n{tail}")


def read(cases: Sequence[Mapping[str, Any]], output: pathlib.Path
         ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
  """Reads the results of the finished cases.

  Returns:
    The rows of a frame for `synthesis.augment.gains`; and one entry per case with its task, budget,
    arm, subset and the record of its training.
  """
  rows, trainings = [], []
  for case in cases:
    if not _path(output, case).exists():
      continue
    stored = _stored(_path(output, case))
    key = {name: case[name] for name in ("task", "budget", "arm", "subset")}
    rows += [{**key, **row} for row in stored["rows"]]
    trainings.append({**key, **stored["training"]})
  return rows, trainings


def costs(trainings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
  """For each task, budget and arm: number of cases, mean times and numbers of training programs.

  If training began with tasks about graphs, `learned_before` has the means of their figures on
  held-out graphs, as `pretraining.Pretrainer` reports them, and of the numbers of graphs.
  """
  groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
  for one in trainings:
    groups.setdefault(tuple(one[name] for name in ("task", "budget", "arm")), []).append(one)
  # Older results have no "steps_before".
  mean = lambda many, key: sum(one[key] if key != "steps_before" else one.get(key, 0)
                               for one in many) / len(many)
  return [{"task": task, "budget": budget, "arm": arm, "n_seeds": len(many),
           **{key: mean(many, key) for key in (
               "seconds", "cpu_seconds", "steps", "steps_before", "real_programs",
               "synthetic_programs", "held_back", "best_epoch")},
           **({"learned_before": _learned_before(many)} if "pretraining" in many[0] else {})}
          for (task, budget, arm), many in groups.items()]


def _learned_before(trainings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  reports = [one["pretraining"] for one in trainings if "pretraining" in one]
  counts: dict[str, Any] = {key: sum(one[key] for one in reports) / len(reports) for key in (
      "real_graphs", "synthetic_graphs", "held_out_graphs")}
  figures: dict[str, list[float]] = {}
  for one in reports:
    for task, measures in one["held_out"].items():
      for name, value in measures.items():
        if value is not None:
          figures.setdefault(f"{task}_{name}", []).append(value)
  return {**counts, **{name: sum(values) / len(values) for name, values in figures.items()}}


def run_case(case: Mapping[str, Any], tasks: dict[str, Any]) -> dict[str, Any]:
  """Trains and evaluates one case. `tasks` is a cache of what the cases of a task share."""
  from tpugraphs_rank.evaluation import task as task_lib  # TensorFlow: planning does not need it.
  from tpugraphs_rank.synthesis.augment import strategies
  from tpugraphs_rank.training import run as run_lib
  from tpugraphs_rank.training import trainer

  started, cpu = time.monotonic(), time.process_time()
  config = config_lib.from_dict(run_config.RunConfig, case["config"], source=case["name"])
  key = f"{case['task']} {case['split']}"
  if key not in tasks:
    # Whether a group is seen depends on the collection, not on the programs of the budget.
    tasks[key] = task_lib.load_task(
        dataclasses.replace(config.data, max_graphs=None), case["split"])
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    strategy = strategies.STRATEGIES[case.get("strategy", "measured")]()
    training = trainer.Trainer(strategy.prepare(config, folder))
    result = training.train(folder / "run")
    scores = run_lib.load_run(folder / "run").score_programs(tasks[key].programs)
    before = strategies.done_before(folder)
  frame = tasks[key].evaluate(scores)
  rows = frame[list(_KEPT)].astype(object).where(frame[list(_KEPT)].notna(), None)
  synthetic = training.counts.get("synthetic")
  return {"case": dict(case), "rows": rows.to_dict("records"), "training": {
      "seconds": time.monotonic() - started, "cpu_seconds": time.process_time() - cpu,
      "steps": result.epochs * training.steps_per_epoch, **before, "best_epoch": result.best_epoch,
      "valid": result.metrics, "real_programs": len(training.train_graphs),
      "synthetic_programs": len(training.synthetic_graphs),
      "held_back": len(synthetic.held_back) if synthetic else 0}}


def define_flags() -> None:
  """Defines the flags."""
  flags.DEFINE_string("cases", None, "JSON file with a list of cases.", required=True)
  flags.DEFINE_string("output", None, "Folder of the results.", required=True)


def main(argv: list[str]) -> None:
  """Runs the cases."""
  import tensorflow as tf

  output = pathlib.Path(flags.FLAGS.output)
  tasks: dict[str, Any] = {}
  for case in files.read_json(flags.FLAGS.cases):
    if not is_done(output, case):
      files.write_json(_path(output, case), run_case(case, tasks))
      tf.keras.backend.clear_session()  # Otherwise the functions of every case stay in memory.


if __name__ == "__main__":
  app.run(main, define_flags)
