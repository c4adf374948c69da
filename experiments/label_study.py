"""Do generated graphs improve a surrogate of graph labels? Arms, label budgets, paired seeds.

  python -m experiments.label_study --graphs kernels.npz --output runs/label_study \\
    --results results/augmentation_labels.json

The label of a real kernel is its mean normalized runtime. Graphs are split by structure. A budget
is a number of training graphs with known labels, which each seed selects. Graphs without labels may
always be used: one LayerDAG learns the structures of all training graphs, without labels. All
surrogates take the same number of steps and are selected on the same real validation graphs:

  real                    only the real half of the other arms' graphs per step
  real_oversampled        further real graphs replace the generated ones
  layerdag_taught         real graphs, and generated graphs labeled by the surrogates of the two
                          arms above, which know the budget's labels only
  layerdag_taught_shuffled  control: the same with permuted labels
  layerdag_taught_only    generated graphs alone
  real_taught             control: unlabeled real training graphs, labeled in the same way, replace
                          the generated ones
  layerdag_conditioned    with all labels known: graphs that a LayerDAG generated for a label, with
                          that label (with --conditioned)

The study keeps finished cases: run it again to continue. It writes study.md and study.json to
--output, and the figures to --results. Intervals hold simultaneously for all arms, budgets and both
measures.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import pathlib
import time
from typing import Any, NamedTuple

from absl import flags
import numpy as np
import tqdm

from experiments import augmentation_study
from experiments import label_gains
from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import folder_settings
from tpugraphs_rank import metrics
from tpugraphs_rank import recipes
from tpugraphs_rank import tables
from tpugraphs_rank.cli import app
from tpugraphs_rank.data import mixing
from tpugraphs_rank.evaluation import result_tables
from tpugraphs_rank.evaluation import two_way
from tpugraphs_rank.synthesis.augment import gains as gains_lib
from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.judging import measures
from tpugraphs_rank.synthesis.layerdag import settings as settings_lib

REAL, OVERSAMPLED = "real", "real_oversampled"
TAUGHT, SHUFFLED, ONLY = "layerdag_taught", "layerdag_taught_shuffled", "layerdag_taught_only"
REAL_TAUGHT, CONDITIONED = "real_taught", "layerdag_conditioned"
ARMS = (REAL, OVERSAMPLED, TAUGHT, SHUFFLED, ONLY, REAL_TAUGHT, CONDITIONED)
# The arms that each arm is compared with.
RIVALS: Mapping[str, tuple[str, ...]] = {
    TAUGHT: (REAL, OVERSAMPLED, SHUFFLED, REAL_TAUGHT), SHUFFLED: (REAL, OVERSAMPLED),
    ONLY: (REAL, OVERSAMPLED), REAL_TAUGHT: (REAL, OVERSAMPLED), CONDITIONED: (REAL, OVERSAMPLED)}
_STRUCTURES, _LABELS = "structures", "conditioned"  # Folders of the two generators.
_SAMPLING, _ROUND = 1, 2  # Seeds.


def define_flags() -> None:
  """Defines the flags."""
  flags.DEFINE_string("graphs", None, "File of the real labeled graphs.", required=True)
  flags.DEFINE_string("output", "runs/label_study", "Folder of generators, cases and the report.")
  flags.DEFINE_string("config", "layerdag_tpu_tile", "Recipe or JSON file with the settings of the "
                      "generators; the study sets the conditions.")
  flags.DEFINE_list("budgets", ["20", "40", "80", augmentation_study.ALL], "Numbers of labeled "
                    "training graphs; all: every graph.")
  flags.DEFINE_integer("seeds", 5, "Number of seeds 0, 1, ... of subsets and surrogates.",
                       lower_bound=1)
  flags.DEFINE_integer("division", 0, "Seed of the split by structure.", lower_bound=0)
  flags.DEFINE_boolean("conditioned", False, "Also train a generator that is conditioned on "
                       "labels.")
  flags.DEFINE_float("guidance", 2.0, "Guidance of the conditioned generator.", lower_bound=0.0)
  flags.DEFINE_integer("batch_size", 32, "Graphs per step of a surrogate.", lower_bound=2)
  flags.DEFINE_integer("steps_per_epoch", 6, "Steps between validations.", lower_bound=1)
  flags.DEFINE_integer("epochs", 30, "Validations per training of a surrogate.", lower_bound=1)
  flags.DEFINE_integer("width", 64, "Width of the surrogates' states.", lower_bound=4)
  flags.DEFINE_float("learning_rate", 1e-3, "Learning rate of the surrogates.", lower_bound=1e-6)
  flags.DEFINE_string("results", None, "Also write the figures to this file.")


class Study(NamedTuple):
  """The common data of all surrogates: graphs of each split, generated graphs, and options."""

  parts: Mapping[str, dags_lib.Dags]
  generated: dags_lib.Dags  # Without labels.
  conditioned: dags_lib.Dags | None  # With the labels that they were generated for.
  label: str
  options: Any  # surrogate.Options of all arms but REAL.


def generated(folder: pathlib.Path, parts: Mapping[str, dags_lib.Dags], conditions: Sequence[str],
              path: str, guidance: float) -> dags_lib.Dags:
  """As many graphs as training has, from a generator that is trained, or resumed, in `folder`.

  Graphs with the structure of a validation or test graph are dropped.
  """
  from tpugraphs_rank.synthesis.layerdag import model as model_lib  # Imports TensorFlow.
  from tpugraphs_rank.synthesis.layerdag import sampler
  from tpugraphs_rank.synthesis.layerdag import training

  if not (folder / "synthetic.npz").exists():
    for split in ("train", "valid"):
      dags_lib.save(folder / f"{split}.npz", parts[split])
    stored = recipes.read(path)
    config = config_lib.override(config_lib.from_dict(
        settings_lib.LayerDagConfig, stored, source=path), {
            "data.graphs": str(folder / "train.npz"),
            "data.valid_graphs": str(folder / "valid.npz"), "data.conditions": list(conditions)})
    if not (folder / "run" / "model.npz").exists():
      training.Trainer(config).train(folder / "run")
    model = model_lib.LayerDAG.load(folder / "run" / "model.npz")
    dags_lib.save(folder / "synthetic.npz", model.sample(
        len(parts["train"]), seed=_SAMPLING, options=sampler.Options(guidance=guidance)))
  graphs = dags_lib.load(folder / "synthetic.npz")
  known = np.concatenate([parts[split].hashes() for split in ("valid", "test")])
  return graphs.take(np.flatnonzero(~np.isin(graphs.hashes(), known)))


def rows_of(count: int, wanted: int, seed: Sequence[int]) -> np.ndarray:
  """(wanted,) indices of `count` graphs; all occur equally often, up to one."""
  return mixing.repeated_permutations(count, 0, wanted, seed)


def arms(study: Study, budget: int | None, seed: int, predict: Any
         ) -> Iterator[tuple[str, dags_lib.Dags, int]]:
  """The arms of a budget and seed in order: name, graphs of one round, graphs per step.

  Args:
    study: the study.
    budget: number of labeled training graphs; None: all.
    seed: seed that selects them.
    predict: returns labels (g,) of graphs, predicted by the surrogates of the arms REAL and
      OVERSAMPLED, which must be trained before the third arm is requested.
  """
  train, size = study.parts["train"], study.options.batch_size
  order = np.random.default_rng([seed, 0]).permutation(len(train))
  known = train.take(order[:budget])
  # As many rows of real and of other graphs as training has graphs, so that each is used.
  half, whole = len(train), 2 * len(train)
  sampled = lambda graphs, count: graphs.take(rows_of(len(graphs), count, [seed, _ROUND]))
  yield REAL, sampled(known, half), size // 2
  yield OVERSAMPLED, sampled(known, whole), size
  labelled = lambda graphs: graphs.with_labels(predict(graphs), [study.label])
  mixed = lambda graphs: dags_lib.concat([sampled(known, half), sampled(graphs, whole - half)])
  taught = labelled(study.generated)
  yield TAUGHT, mixed(taught), size
  permuted = np.random.default_rng([seed, 3]).permutation(len(taught))
  yield SHUFFLED, mixed(taught.with_labels(taught.y[permuted], taught.y_names)), size
  yield ONLY, sampled(taught, whole), size
  if len(known) < len(train):
    yield REAL_TAUGHT, mixed(labelled(train.take(order[budget:]))), size
  elif study.conditioned is not None:
    yield CONDITIONED, mixed(study.conditioned), size


def run(study: Study, budget: int | None, seed: int, folder: pathlib.Path) -> None:
  """Trains the surrogates of a budget and seed that have no result file yet."""
  from tpugraphs_rank.synthesis.judging import surrogate as surrogate_lib

  guesses: list[np.ndarray] = []  # Labels of the graphs in `pool`, predicted by each teacher.
  pool = dags_lib.concat([
      study.generated.with_labels(np.zeros(len(study.generated)), [study.label]),
      study.parts["train"]])
  index = {value: number for number, value in enumerate(pool.hashes().tolist())}

  def predict(graphs: dags_lib.Dags) -> np.ndarray:
    return np.mean(guesses, axis=0)[[index[value] for value in graphs.hashes().tolist()]]

  for arm, graphs, size in arms(study, budget, seed, predict):
    path = folder / f"{arm}.json"
    if not path.exists():
      started = time.process_time()
      surrogate = surrogate_lib.train(
          graphs, study.parts["valid"], seed, study.label,
          dataclasses.replace(study.options, batch_size=size))
      stored = {
          "predictions": surrogate.predict(study.parts["test"]).tolist(),
          "valid_pearson": surrogate.valid_pearson, "epoch": surrogate.epoch,
          "cpu_seconds": time.process_time() - started}
      if arm in (REAL, OVERSAMPLED):
        stored["guesses"] = surrogate.predict(pool).tolist()
      files.write_json(path, stored)
    if arm in (REAL, OVERSAMPLED):
      guesses.append(np.array(files.read_json(path)["guesses"]))


def report(truth: np.ndarray, families: Sequence[str],
           stored: Mapping[int, Mapping[str, Mapping[int, Mapping[str, Any]]]]) -> dict[str, Any]:
  """Means and comparisons as JSON values.

  Args:
    truth: (g,) labels of the test graphs.
    families: (g,) their structures.
    stored: for each budget, arm and seed the stored result of its surrogate.
  """
  means, comparisons = [], []
  ours = [(budget, arm) for budget, by_arm in stored.items() for arm in by_arm if arm in RIVALS]
  level = two_way.corrected_level(max(len(ours), 1) * len(label_gains.MEASURES))
  for budget, by_arm in stored.items():
    for arm, by_seed in by_arm.items():
      each = [one["predictions"] for one in by_seed.values()]
      means.append({
          "budget": budget, "arm": arm, "n_seeds": len(each),
          "pearson": result_tables.figure(
              [measures.zero_if_nan(metrics.pearson(truth, one)) for one in each]),
          "mae": result_tables.figure([metrics.mean_absolute_error(truth, one) for one in each]),
          "cpu_seconds": float(np.mean([one["cpu_seconds"] for one in by_seed.values()]))})
      rivals = {}
      for rival in RIVALS.get(arm, ()):
        common = sorted(set(by_seed) & set(by_arm.get(rival, {})))
        if common:
          own, theirs = (np.array([side[seed]["predictions"] for seed in common])
                           for side in (by_seed, by_arm[rival]))
          rivals[rival] = {name: interval.as_dict() for name, interval in label_gains.gains(
              truth, own, theirs, families, level).items()}
      if arm in RIVALS:
        comparisons.append({"task": "labels", "budget": budget, "arm": arm, "level": level,
                            "n_seeds": len(each), "gains": rivals})
  return {"means": means, "comparisons": comparisons}


def markdown(results: Mapping[str, Any]) -> str:
  """One row per budget and arm: both measures, and the gains over each rival."""
  gains = {(one["budget"], one["arm"]): one["gains"] for one in results["comparisons"]}
  rivals = (REAL, OVERSAMPLED, SHUFFLED, REAL_TAUGHT)
  header = ["labeled graphs", "training", "Pearson", "MAE", *(
      f"{measure}: gain over {rival.replace('_', ' ')}" for rival in rivals
      for measure in ("Pearson", "MAE")), "seeds"]
  rows = []
  for one in results["means"]:
    own = gains.get((one["budget"], one["arm"]), {})
    rows.append([str(one["budget"]), one["arm"].replace("_", " "),
                 result_tables.cell("pearson", one["pearson"]),
                 result_tables.cell("mae", one["mae"]),
                 *(gains_lib.gain_text(own.get(rival, {}).get(name)) for rival in rivals
                   for name in label_gains.MEASURES), str(one["n_seeds"])])
  return tables.markdown(header, rows)


def readme_table(results: Mapping[str, Any]) -> str:
  """One row per budget: Pearson with real graphs, and the gains of generated and real graphs."""
  gains = {(one["budget"], one["arm"]): one["gains"] for one in results["comparisons"]}
  by_cell = {(one["budget"], one["arm"]): one for one in results["means"]}
  rows = []
  for budget in dict.fromkeys(one["budget"] for one in results["means"]):
    oversampled = by_cell[budget, OVERSAMPLED]["pearson"]
    rows.append([str(budget), result_tables.cell("pearson", oversampled), *(
        gains_lib.gain_text(gains.get((budget, arm), {}).get(OVERSAMPLED, {}).get(name))
        for arm, name in ((TAUGHT, "pearson"), (TAUGHT, "mae"), (REAL_TAUGHT, "pearson"),
                          (SHUFFLED, "pearson")))])
  return tables.markdown(
      ["labeled graphs", "Pearson, real oversampled", "gain from LayerDAG graphs, predicted labels",
       "the same in MAE", "gain from real graphs, predicted labels",
       "gain from shuffled labels"], rows)


def main(argv: list[str]) -> None:
  """Runs the study."""
  values = flags.FLAGS
  output = pathlib.Path(values.output)
  graphs = dags_lib.load(values.graphs)
  if not graphs.y_names:
    raise errors.DataError(f"{values.graphs} has no labels, which the study needs")
  label = graphs.y_names[0]
  folder_settings.check(output, {
      "graphs": dags_lib.digest(graphs),
      "config": recipes.read(values.config), **{name: values[name].value for name in (
          "division", "guidance", "batch_size", "steps_per_epoch", "epochs", "width",
          "learning_rate")}})
  parts = {split: graphs.take(rows) for split, rows in dags_lib.split_by_wl(
      graphs, dags_lib.SHARES, values.division).items()}
  whole = len(parts["train"])
  budgets = augmentation_study.budgets_of(values.budgets)
  if any(budget is not None and budget > whole for budget in budgets):
    raise errors.ConfigError(
        f"--budgets={','.join(values.budgets)}; training has {whole} graphs: use fewer, or all")
  from tpugraphs_rank.synthesis.judging import surrogate as surrogate_lib
  from tpugraphs_rank.training import run_directory
  from tpugraphs_rank.training import runtime

  runtime.configure(values.division, 1)
  structures = parts["train"].with_labels(np.zeros([whole, 0]), [])
  bare = {**parts, "train": structures,
          "valid": parts["valid"].with_labels(np.zeros([len(parts["valid"]), 0]), [])}
  unlabeled = generated(output / _STRUCTURES, bare, ["size"], values.config, 1.0)
  conditioned = generated(output / _LABELS, parts, [label, "size"], values.config, values.guidance
                          ) if values.conditioned else None
  if conditioned is not None:
    conditioned = conditioned.with_labels(conditioned.label(label), [label])
  study = Study(
      parts, unlabeled, conditioned, label, dataclasses.replace(
          surrogate_lib.SINGLE_NETWORK, width=values.width, learning_rate=values.learning_rate,
          batch_size=values.batch_size, steps_per_epoch=values.steps_per_epoch,
          max_epochs=values.epochs, patience=values.epochs))
  cases = [(budget, seed) for seed in range(values.seeds) for budget in budgets]
  folder_of = lambda budget, seed: output / "cases" / str(budget or whole) / f"seed{seed}"
  for budget, seed in tqdm.tqdm(cases, desc="budgets and seeds", disable=None):
    run(study, budget, seed, folder_of(budget, seed))
  stored: dict[int, dict[str, dict[int, Any]]] = {}
  for arm in ARMS:
    for budget, seed in cases:
      path = folder_of(budget, seed) / f"{arm}.json"
      if path.exists():
        stored.setdefault(budget or whole, {}).setdefault(arm, {})[seed] = files.read_json(path)
  results = {
      **run_directory.environment(), "real_graphs": pathlib.Path(values.graphs).name,
      **{f"{split}_graphs": len(part) for split, part in parts.items()},
      "test_structures": len(np.unique(parts["test"].wl)), "made_graphs": len(unlabeled),
      "seeds": list(range(values.seeds)), "division": values.division,
      "surrogate": {"batch_size": values.batch_size, "epochs": values.epochs,
                    "steps": values.epochs * values.steps_per_epoch, "width": values.width,
                    "learning_rate": values.learning_rate},
      **report(parts["test"].label(label), [str(value) for value in parts["test"].wl.tolist()],
               {budget: stored[budget] for budget in sorted(stored)})}
  files.write_json(output / "study.json", results)
  text = markdown(results)
  files.write_text(output / "study.md", text)
  if values.results:
    files.write_json(values.results, results)
  print(text)


if __name__ == "__main__":
  app.run(main, define_flags)
