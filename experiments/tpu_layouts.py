"""Evaluates rankers on the layouts of two programs that were measured on TPU v3.

  python -m experiments.tpu_layouts --graphs graphs/tpugraphs_npz --output runs/tpu_layouts

--graphs is the folder of the public tree that contains layout/. The study reads three of its
graphs: a training graph, and two searches of one validation program.

  1. New configurations of a known program: each division holds back a fifth of the distinct
     configurations of a graph for testing. The rankers learn from 5, 20 and 80 % of the distinct
     configurations, of which a fifth selects the checkpoint. The test part is the same for all
     shares.
  2. Another program: the rankers learn from 99 % of the distinct configurations of the training
     graph and rank all those of the validation program.

The settings of the networks were chosen from eight on the validation part of one division of the
training graph. No test part selects anything. The budgets are small: each network takes 120 steps.
Finished cases are kept in
--output, so an interrupted study resumes. `tpu_layout_tables` formats the results.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import os
import pathlib
import time
from typing import Any

from absl import flags
import numpy as np
import tqdm

from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import metrics
from tpugraphs_rank import recipes
from tpugraphs_rank import run_config
from tpugraphs_rank import tables
from tpugraphs_rank.cli import app
from tpugraphs_rank.data import splits
from tpugraphs_rank.evaluation import baselines
from tpugraphs_rank.training import run_directory

# The graphs by name, and their files in the public tree.
GRAPHS = {
    "unet3d": "layout/xla/default/train/unet3d.npz",
    "unet_3d.4x4.bf16 default": "layout/xla/default/valid/unet_3d.4x4.bf16.npz",
    "unet_3d.4x4.bf16 random": "layout/xla/random/valid/unet_3d.4x4.bf16.npz",
}
TRAINING_GRAPH = "unet3d"
MODELS = ("residual_gnn", "attention_gnn")
RANKERS = (*MODELS, baselines.BOOSTED_TREES, "size_heuristic", "default_configuration", "random")
# Shares of the distinct configurations that a ranker learns from, in percent.
SHARES = (5, 20, 80)
# The part of these that selects the checkpoint of a model and the settings of the trees.
_VALIDATION = 0.2
_LARGEST = 80
# A division always leaves something to test on.
_WHOLE = 99
_RECIPE = "layout_xla_default"
_SETTINGS = {
    "data.split_by": "configuration", "batch.segment_mode": "full", "batch.batch_size": 2,
    "batch.max_configs": 32, "optimizer.learning_rate": 0.003, "optimizer.warmup_steps": 20,
    "model.mlp_layers": 1, "model.head_widths": (), "model.pooling": ("sum",),
    "model.pool_l2": False, "model.layout_features": "both", "training.validate_every": 3,
    "training.validation_configs": "all", "training.tensorboard": False, "training.threads": 1}
# The trees have a smaller budget than those of `tpugraphs-rank compare`, which tunes six settings
# with up to 800 trees. With few rows, leaves of 20 rows allow no split.
_TREE_ITERATIONS = 300
_TREE_LEAVES = (5, 20)
_TREE_MEMBERS = 3
# The runtimes come in clusters. Pairs that differ by more than this are in different clusters, and
# at least sixty standard deviations of repeats apart.
GAP = 0.001

_Case = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Budget:
  """How long each network is trained.

  Attributes:
    epochs: number of epochs; each ends with a validation.
    steps_per_epoch: training steps of an epoch.
  """

  epochs: int
  steps_per_epoch: int


def write_collection(name: str, graphs: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
  """Writes the descriptor of a collection of one graph; returns its path.

  Raises:
    MissingDataError: the graph is not in the folder `graphs`.
  """
  path = graphs / GRAPHS[name]
  if not path.is_file():
    raise errors.MissingDataError(
        f"no file {path}; --graphs must be the folder of the public tree that contains layout/")
  stem = name.replace(" ", "_")
  descriptor = folder / f"{stem}.json"
  files.write_json(descriptor, {
      "name": f"layout:tpu_v3:{stem}", "kind": "layout", "target": "tpu_v3",
      "hlo_stage": "after_optimization", "splits": {"all": 1},
      "path": os.path.relpath(path.parent, folder), "files": {"all": [path.name]},
      "description": f"One graph of the TpuGraphs release: {GRAPHS[name]}"})
  return descriptor


def configuration(collection: pathlib.Path, model: str, share: int, division: int, budget: Budget
                  ) -> run_config.RunConfig:
  """The settings of one training run.

  Args:
    collection: descriptor of the graph.
    model: name of the model.
    share: share of the distinct configurations to learn from, in percent.
    division: seed of the division and of the training.
    budget: how long to train.
  """
  recipe = config_lib.from_dict(run_config.RunConfig, recipes.read(_RECIPE), source=_RECIPE)
  return config_lib.override(recipe, {
      **_SETTINGS, "data.collection": str(collection),
      "data.train_fraction": share / 100 * (1 - _VALIDATION),
      "data.valid_fraction": share / 100 * _VALIDATION,
      "model.model": model, "training.seed": division, "training.epochs": budget.epochs,
      "training.patience": budget.epochs, "training.steps_per_epoch": budget.steps_per_epoch,
      }, source="experiments.tpu_layouts")


class Study:
  """Trains and evaluates rankers, one case at a time.

  Attributes:
    output: folder of cases and runs.
    budget: how long each network is trained.
  """

  def __init__(self, graphs: pathlib.Path, output: pathlib.Path, budget: Budget):
    self.output, self.budget = output, budget
    self._collections = {
        name: write_collection(name, graphs, output / "collections") for name in GRAPHS}

  def known(self, graph: str, share: int, ranker: str, division: int) -> dict[str, Any]:
    """Metrics on the configurations of `graph` that a division holds back."""
    # The part that the largest share leaves is in no other share's training or validation part.
    config = self._config(graph, ranker, share, division)
    largest = self._config(graph, ranker, _LARGEST, division)
    targets = splits.load(largest.data, "test", division).programs
    used = [splits.load(config.data, side, division).programs for side in ("train", "valid")]
    for (part,), (target,) in ((used[0], targets), (used[1], targets)):
      if np.isin(part.graph.config_keys()[part.indices],
                 target.graph.config_keys()[target.indices]).any():
        raise AssertionError(f"{graph}: a test configuration is in a training part")
    scores = self._scores(config, ranker, division, targets, f"{graph}-{share}")
    return self._metrics(config, ranker, division, targets, scores)

  def across(self, graph: str, ranker: str, seed: int) -> dict[str, Any]:
    """Metrics on all configurations of `graph`, which training never saw."""
    config = self._config(TRAINING_GRAPH, ranker, _WHOLE, seed)
    targets = [splits.ProgramView(self._graph(graph))]
    scores = self._scores(config, ranker, seed, targets, f"{TRAINING_GRAPH}-{_WHOLE}")
    return self._metrics(config, ranker, seed, targets, scores)

  def facts(self, name: str) -> dict[str, Any]:
    """Sizes of a graph, the slowdown of the usual configuration, and what its repeats allow.

    The usual configuration is the one that was measured most often.
    """
    from tpugraphs_rank.evaluation import noise
    graph = self._graph(name)
    runtimes, default = graph.config_runtime, baselines.default_index(graph)
    keys = graph.config_keys()
    usual = np.bincount(keys).argmax() if default is None else keys[default]
    return {
        "file": GRAPHS[name], "nodes": graph.num_nodes,
        "configurable_nodes": len(graph.node_config_ids), "configurations": graph.num_configs,
        "distinct": int(keys.max()) + 1, "slowest_over_fastest": float(
            runtimes.max() / runtimes.min()),
        "has_default": default is not None,
        "usual_slowdown": float(runtimes[keys == usual].mean() / runtimes.min() - 1),
        "usual_measurements": int((keys == usual).sum()),
        "pairs_apart": float(metrics.opa_pairs(runtimes, min_gap=GAP) / (
            graph.num_configs * (graph.num_configs - 1) / 2)),
        "noise_ceiling": noise.noise_ceiling(runtimes, keys).as_dict()}

  def _config(self, graph: str, ranker: str, share: int, seed: int) -> run_config.RunConfig:
    model = ranker if ranker in MODELS else MODELS[0]
    return configuration(self._collections[graph], model, share, seed, self.budget)

  def _graph(self, name: str) -> Any:
    data = self._config(name, MODELS[0], _LARGEST, 0).data
    return splits.load(data, "train").programs[0].graph

  def _scores(self, config: run_config.RunConfig, ranker: str, seed: int,
              targets: Sequence[splits.ProgramView], run: str) -> list[np.ndarray]:
    if ranker in MODELS:
      import tensorflow as tf

      from tpugraphs_rank.training import run as run_lib
      from tpugraphs_rank.training import trainer
      tf.keras.backend.clear_session()
      directory = self.output / "runs" / f"{run.replace(' ', '_')}-{ranker}-{seed}"
      trainer.Trainer(config).train(directory)
      return run_lib.load_run(directory).score_programs(targets)
    if ranker == baselines.BOOSTED_TREES:
      train, valid = (splits.load(config.data, side, seed).programs
                      for side in ("train", "valid"))
      return _tree_scores(train, valid, targets, seed)
    return baselines.trivial(ranker, targets, seed)

  def _metrics(self, config: run_config.RunConfig, ranker: str, seed: int,
               targets: Sequence[splits.ProgramView], scores: Sequence[np.ndarray]
               ) -> dict[str, Any]:
    from tpugraphs_rank.data import registry
    from tpugraphs_rank.evaluation import per_graph
    from tpugraphs_rank.evaluation import result_tables
    frame = per_graph.evaluate(
        targets, scores, registry.get_collection(config.data.collection),
        scores_with_ties=baselines.scores_with_ties(ranker, targets))
    used = 0
    for side in ("train", "valid"):
      (program,) = splits.load(config.data, side, seed).programs
      used += len(np.unique(program.graph.config_keys()[program.indices]))
    figures = {name: figure["mean"] for name, figure in result_tables.figures([frame]).items()}
    figures["opa_apart"] = metrics.opa(per_graph.runtimes_of(targets[0]), scores[0], min_gap=GAP)
    return {"figures": figures,
            "has_default": baselines.has_default(targets[0]),
            "learned_from": used, "tested_on": len(targets[0].indices)}


def _tree_scores(train: Sequence[splits.ProgramView], valid: Sequence[splits.ProgramView],
                 targets: Sequence[splits.ProgramView], seed: int) -> list[np.ndarray]:
  """The mean scores of a few fits with the better of two settings on the validation part."""
  from tpugraphs_rank.evaluation import trees
  grid = [trees.Settings(iterations=_TREE_ITERATIONS, min_samples_leaf=rows)
          for rows in _TREE_LEAVES]
  settings = trees.tune(train, valid, grid, seed)
  fits = [trees.fit(train, settings, _TREE_MEMBERS * seed + member).score(targets)
          for member in range(_TREE_MEMBERS)]
  return [np.mean(values, axis=0) for values in zip(*fits)]


def _kept(path: pathlib.Path, settings: Mapping[str, Any], run: Callable[[], dict[str, Any]]
          ) -> dict[str, Any]:
  """The stored result of a case, or else the result of `run`, which is then stored.

  Raises:
    RunDirectoryError: the file was written with other settings.
  """
  if path.exists():
    stored = files.read_json(path)
    if stored["settings"] != settings:
      raise errors.RunDirectoryError(
          f"{path} was written with {stored['settings']}, and this study has {settings}; choose "
          "another --output")
    return stored["result"]
  started = time.process_time()
  result = run()
  result["cpu_s"] = time.process_time() - started
  files.write_json(path, {"settings": settings, "result": result})
  return result


def _cases(shares: Sequence[int], divisions: int) -> Iterator[_Case]:
  """All cases; a study that is stopped early has whole divisions."""
  targets = [name for name in GRAPHS if name != TRAINING_GRAPH]
  for division in map(str, range(divisions)):
    for ranker in RANKERS:
      # The trained network of one case serves both targets.
      yield from (("across", graph, ranker, division) for graph in targets)
    for share in map(str, shares):
      for graph in GRAPHS:
        yield from (("known", graph, share, ranker, division) for ranker in RANKERS)


def run_study(study: Study, shares: Sequence[int], divisions: int) -> dict[str, Any]:
  """Runs all cases that are not yet stored.

  Returns:
    `graphs`: `Study.facts` of each graph. `known`: figures by graph, share and ranker. `across`:
    figures by graph and ranker. `cpu_s`: CPU seconds of all cases by ranker.
  """
  settings = {**dataclasses.asdict(study.budget), "recipe": _RECIPE, "random_orders": "all"}
  collected: dict[_Case, list[dict[str, Any]]] = {}
  cases = list(_cases(shares, divisions))
  for case in tqdm.tqdm(cases, desc="cases", disable=None):
    part, *names, division = case
    path = study.output / "cases" / f"{'-'.join(case).replace(' ', '_')}.json"

    def run(part: str = part, names: Sequence[str] = names, division: str = division
            ) -> dict[str, Any]:
      if part == "across":
        graph, ranker = names
        return study.across(graph, ranker, int(division))
      graph, share, ranker = names
      return study.known(graph, int(share), ranker, int(division))
    collected.setdefault((part, *names), []).append(_kept(path, settings, run))

  known: dict[str, Any] = {name: {str(share): {} for share in shares} for name in GRAPHS}
  across: dict[str, Any] = {name: {} for name in GRAPHS if name != TRAINING_GRAPH}
  seconds = dict.fromkeys(RANKERS, 0.0)
  for (part, graph, *rest), results in collected.items():
    ranker = rest[-1]
    seconds[ranker] += sum(result["cpu_s"] for result in results)
    place = across[graph] if part == "across" else known[graph][rest[0]]
    if part == "known":
      place["learned_from"] = _mean(results, "learned_from")
      place["tested_on"] = _mean(results, "tested_on")
    # The default is a test configuration in some divisions only. In the others it ranks nothing.
    counted = [result for result in results
               if ranker != "default_configuration" or result["has_default"]]
    if counted:
      place.setdefault("rankers", {})[ranker] = _figures(counted)
  return {"graphs": {name: study.facts(name) for name in GRAPHS}, "known": known,
          "across": across, "cpu_s": seconds}


def _mean(results: Sequence[Mapping[str, Any]], key: str) -> float:
  return float(np.mean([result[key] for result in results]))


def _figures(results: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
  """Mean and standard deviation over the divisions that have the figure."""
  from tpugraphs_rank.evaluation import result_tables
  names = dict.fromkeys(name for result in results for name in result["figures"])
  return {name: result_tables.figure([result["figures"][name] for result in results
                                      if name in result["figures"]]) for name in names}


def main(argv: list[str]) -> None:
  """Runs the study."""
  from experiments import tpu_layout_tables
  values = flags.FLAGS
  try:
    shares = [int(share) for share in values.shares]
    if not shares or min(shares) < 1 or max(shares) > _LARGEST or len(set(shares)) < len(shares):
      raise ValueError
  except ValueError:
    raise errors.ConfigError(f"--shares={','.join(values.shares)}; expected different whole "
                             f"numbers of percent from 1 to {_LARGEST}, such as 5,20") from None
  budget = Budget(values.epochs, values.steps_per_epoch)
  study = Study(pathlib.Path(values.graphs), pathlib.Path(values.output), budget)
  results = {
      **run_directory.environment(), "seeds": list(range(values.divisions)), "shares": shares,
      "settings": {"recipe": _RECIPE, **_SETTINGS, **dataclasses.asdict(budget),
                   "validation_part": _VALIDATION, "tree_iterations": _TREE_ITERATIONS,
                   "tree_members": _TREE_MEMBERS},
      **run_study(study, shares, values.divisions)}
  files.write_json(study.output / "results.json", results)
  if values.results:
    files.write_json(values.results, results)
  for table in (tpu_layout_tables.known_rows, tpu_layout_tables.across_rows):
    print(tables.text(*table(results)))


def define_flags() -> None:
  """Defines the flags."""
  flags.DEFINE_string("graphs", None, "Folder of the public tree that contains layout/.",
                      required=True)
  flags.DEFINE_string("output", "runs/tpu_layouts", "Folder of the cases and runs.")
  flags.DEFINE_list("shares", [str(share) for share in SHARES],
                    "Shares of the distinct configurations to learn from, in percent.")
  flags.DEFINE_integer("divisions", 6, "Number of divisions: 0, 1, ...", lower_bound=1)
  flags.DEFINE_integer("epochs", 6, "Epochs of each training.", lower_bound=1)
  flags.DEFINE_integer("steps_per_epoch", 20, "Training steps of an epoch.", lower_bound=1)
  flags.DEFINE_string("results", None, "Also write the figures to this file.")


if __name__ == "__main__":
  app.run(main, define_flags)
