"""The trainings of a study of synthetic programs, several in each process.

  python -m tpugraphs_rank.cli.augment_cases --cases cases.json --output runs/augmentation

`tpugraphs_rank.cli.augment` and `experiments.augmentation_study` write the list of cases and start this.
Each case is one short training, judged on held-back programs, and leaves one small file in
--output. What is done is kept; a case that was interrupted starts anew.
"""

from collections.abc import Mapping, Sequence
import concurrent.futures
import dataclasses
import hashlib
import pathlib
import subprocess
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
from tpugraphs_rank import recipes
from tpugraphs_rank import run_config
from tpugraphs_rank.cli import app
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import mixing
from tpugraphs_rank.data import registry
from tpugraphs_rank.synthesis.augment import gains

SYNTHETIC = "synthetic"
LAYERDAG = "layerdag"
# What becomes of synthetic programs; `synthesis.augment.strategies` says what each does.
STRATEGIES = ("measured", "distilled", "pretrained", "auxiliary", "selfsupervised",
              "selfsupervised_measured")
# Fewer tell next to nothing about how much trainings differ.
FEW_SEEDS = 5
_KEPT = ("graph", "family", "seen", *gains.METRICS.values())


@dataclasses.dataclass(frozen=True)
class Arm:
  """A way to train.

  Attributes:
    source: which synthetic collection takes part; None: none.
    oversampled: without one, whether real lists stand in the place of the synthetic ones.
    changes: settings that it has beside those of all arms.
    strategy: how synthetic programs become signal; see `synthesis.augment.strategies`.
    matched: whether it has as many synthetic programs as the smallest source, not all of its own.
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
    base: the run's settings, of which arm, budget and seed change some.
    sources: for each name of `Arm.source` the collection, or the path of its descriptor.
    split: the split that is judged.
    matched: synthetic programs of the arms that are matched in number; None: all of theirs.
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
    path: of a file of settings; None: the recipe of the bundled collection of that kind.
    epochs, steps_per_epoch: how long; training is never stopped early, so that steps are equal.
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
  """Matched arms get as many synthetic programs as the smallest source has, if no number is set."""
  if settings.base.augment.synthetic_graphs is not None or not settings.sources:
    return settings
  return dataclasses.replace(settings, matched=min(
      len(_training_files(source)) for source in settings.sources.values()))


def plan(tasks: Mapping[str, Settings], budgets: Sequence[int | None], arms: Sequence[str],
         seeds: Sequence[int]) -> list[dict[str, Any]]:
  """The cases, as JSON values: all arms of a seed one after the other, seed by seed.

  Arms whose source is not given for a task are left out of it.

  Args:
    tasks: for each name the settings.
    budgets: numbers of real programs that train; None: all.
    arms: names of ARMS.
    seeds: each draws the real programs (the same for all arms), the weights and the synthetic ones.

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
            f"a budget of {budget} programs: {task} has {whole} training programs; ask for fewer, "
            "or for all")
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
              "split": settings.split, "source": digests.get(arm.source),
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
    # The real part of the steps of the other arms, alone.
    made = max(round(base.augment.synthetic_share * base.batch.batch_size), 1)
    changes["batch.batch_size"] = max(base.batch.batch_size - made, 1)
  if arm.source is None:
    # What says nothing without synthetic programs does not make another case.
    changes["augment.synthetic_graphs"] = None
  return config_lib.override(base, changes, source="plan of cases")


def _training_files(source: str, data_root: str | None = None) -> list[pathlib.Path]:
  collection = registry.get_collection(source)
  split = "train" if "train" in collection.splits else registry.WHOLE
  found, missing = collections.find_files(collection, split, data_root)
  if missing:
    raise collections.missing_error(collection, split, missing[0], data_root)
  return found


def digest(source: str) -> str:
  """16 hex digits of the training files of a collection: their names and contents."""
  value = hashlib.sha256()
  for path in _training_files(source):
    value.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
  return value.hexdigest()[:16]


# ---- running -------------------------------------------------------------------------------------


def _path(output: pathlib.Path, case: Mapping[str, Any]) -> pathlib.Path:
  return output / "cases" / f"{case['name']}.json"


def is_done(output: pathlib.Path, case: Mapping[str, Any]) -> bool:
  """Whether the case has left its file.

  Raises:
    RunDirectoryError: its file is that of other settings, or synthetic programs.
  """
  path = _path(output, case)
  if not path.exists():
    return False
  stored = files.read_json(path)["case"]
  ours, theirs = (config_lib.from_dict(run_config.RunConfig, one["config"], source=str(path))
                  for one in (stored, case))
  # Where the synthetic programs lie does not count, what they are does: see `digest`.
  without = lambda config: config_lib.override(config, {"augment.synthetic": None})
  folder_settings.refuse_if_different(path, [
      *config_lib.differences(without(ours), without(theirs)),
      *folder_settings.differences(stored, case, ("split", "source"))])
  return True


def run_all(cases: Sequence[Mapping[str, Any]], output: pathlib.Path, jobs: int,
            at_a_time: int = 12) -> None:
  """Runs the cases that are not done yet.

  Args:
    cases: of `plan`.
    output: folder of their files.
    jobs: processes at a time.
    at_a_time: cases a process: TensorFlow starts once for them.

  Raises:
    TrainingError: a process failed; what was done is kept.
  """
  waiting = [case for case in cases if not is_done(output, case)]
  size = max(min(at_a_time, -(-len(waiting) // jobs)), 1)
  parts = [waiting[start:start + size] for start in range(0, len(waiting), size)]
  with tqdm.tqdm(total=len(cases), initial=len(cases) - len(waiting), unit="case",
                 desc="training", disable=None) as bar:
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
      futures = {pool.submit(_run_process, part, output, number)
                 for number, part in enumerate(parts)}
      try:
        while futures:
          done, futures = concurrent.futures.wait(
              futures, timeout=5, return_when=concurrent.futures.FIRST_COMPLETED)
          bar.update(sum(_path(output, case).exists() for case in cases) - bar.n)
          for future in done:
            future.result()
      except BaseException:
        pool.shutdown(cancel_futures=True)
        raise


def _run_process(cases: Sequence[Mapping[str, Any]], output: pathlib.Path, number: int) -> None:
  listed = output / f".cases{number}.json"
  files.write_json(listed, list(cases))
  try:
    done = subprocess.run(
        [sys.executable, "-m", "tpugraphs_rank.cli.augment_cases", "--cases", str(listed),
         "--output", str(output)], capture_output=True, text=True, stdin=subprocess.DEVNULL)
  finally:
    listed.unlink(missing_ok=True)
  if done.returncode:
    tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-8:])
    raise errors.TrainingError(f"cases failed (exit status {done.returncode}):\n{tail}")


def read(cases: Sequence[Mapping[str, Any]], output: pathlib.Path
         ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
  """What the cases that are done have left.

  Returns:
    Rows of a frame as `evaluation.augmentation` takes it; and one entry a case: task, budget, arm,
    subset, and what its training was.
  """
  rows, trainings = [], []
  for case in cases:
    if not _path(output, case).exists():
      continue
    stored = files.read_json(_path(output, case))
    key = {name: case[name] for name in ("task", "budget", "arm", "subset")}
    rows += [{**key, **row} for row in stored["rows"]]
    trainings.append({**key, **stored["training"]})
  return rows, trainings


def costs(trainings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
  """For each task, budget and arm: cases, their mean seconds, and the programs that trained.

  Where tasks about graphs came first, `learned_before` has the means of how well they were answered
  on held-out graphs, as of `pretraining.Pretrainer.judge`, and of the numbers of graphs.
  """
  groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
  for one in trainings:
    groups.setdefault(tuple(one[name] for name in ("task", "budget", "arm")), []).append(one)
  # Older cases do not say what steps there were before.
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
  found: dict[str, Any] = {key: sum(one[key] for one in reports) / len(reports) for key in (
      "real_graphs", "synthetic_graphs", "held_out_graphs")}
  answers: dict[str, list[float]] = {}
  for one in reports:
    for task, measures in one["held_out"].items():
      for name, value in measures.items():
        if value is not None:
          answers.setdefault(f"{task}_{name}", []).append(value)
  return {**found, **{name: sum(values) / len(values) for name, values in answers.items()}}


def run_case(case: Mapping[str, Any], tasks: dict[str, Any]) -> dict[str, Any]:
  """Trains and judges one case; `tasks` keeps what cases of one task share."""
  from tpugraphs_rank.evaluation import task as task_lib  # TensorFlow: not for the plan.
  from tpugraphs_rank.synthesis.augment import strategies
  from tpugraphs_rank.training import run as run_lib
  from tpugraphs_rank.training import trainer

  started, cpu = time.monotonic(), time.process_time()
  config = config_lib.from_dict(run_config.RunConfig, case["config"], source=case["name"])
  key = f"{case['task']} {case['split']}"
  if key not in tasks:
    # Seen and unseen are a matter of the collection, not of the programs that a budget draws.
    tasks[key] = task_lib.load_task(
        dataclasses.replace(config.data, max_graphs=None), case["split"])
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    strategy = strategies.STRATEGIES[case.get("strategy", "measured")]()
    training = trainer.Trainer(strategy.prepare(config, folder))
    result = training.train(folder / "run")
    scores = run_lib.load_run(folder / "run").score_programs(tasks[key].programs)
    before = strategies.done_before(folder)
  frame = tasks[key].judge(scores)
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
  flags.DEFINE_string("output", None, "Folder of their files.", required=True)


def main(argv: list[str]) -> None:
  """Runs the cases."""
  import tensorflow as tf

  output = pathlib.Path(flags.FLAGS.output)
  tasks: dict[str, Any] = {}
  for case in files.read_json(flags.FLAGS.cases):
    if not is_done(output, case):
      files.write_json(_path(output, case), run_case(case, tasks))
      tf.keras.backend.clear_session()  # Otherwise every case's functions stay in memory.


if __name__ == "__main__":
  app.run(main, define_flags)
