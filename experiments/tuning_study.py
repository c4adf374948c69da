"""Compares ways to find a fast configuration with few measurements, on measured pools.

  python -m experiments.tuning_study --split valid
  python -m experiments.tuning_study --split test --results results/tuning.json
  python -m experiments.tuning_study --split test --seeds 20 --share 0.8 \
    --results results/tuning_parts.json
  python -m experiments.tuning_study --results results/tuning.json --figure docs/assets/tuning.svg
  python -m experiments.tuning_study --pools runs/tuning_live --measurements 40 \\
    --together results/tuning.json --results results/tuning_pools.json

Every program of a split is a pool of configurations with known runtimes. Each strategy measures the
default first, then chooses one configuration after another; nothing is compiled. The figure is how
much slower the best measured configuration is than the best of the pool. Seeds are averaged per
program, and intervals are over programs.

  random        in random order
  climbing      hill climbing: one of the four nearest to the fastest so far
  tpe           Optuna's TPE sampler over the requests; the nearest configuration is measured
  ranked        in the order of the bundled ranker's scores
  adaptive      the tuner without a prior, the default of the command `tune`
  adaptive_prior   the tuner with the ranker's scores as its prior

With --share 0.8, each seed sees another random 80 % of each pool. In a small pool, the tuner's
choices do not depend on the seed, so that its mean is otherwise over one search of each program.

With --pools, the programs are those that `experiments.tuning_live` measured in a folder: the
default and random configurations of programs that are in no collection. The results then also have
the slowdowns after some seconds. k measurements take k times the program's seconds of compiling and
timing a configuration, as measured there, and the strategy's own seconds of k decisions.

--together also gives the paired differences over the programs of both results.

TPE needs Optuna, an extra: `pip install 'tpugraphs_rank[sweep]'`. Without it, the others run.
"""

from collections.abc import Callable
import copy
import importlib.util
import logging
import pathlib
import time
from typing import Any

from absl import flags
import numpy as np
import tqdm

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import tables
from tpugraphs_rank import tuning
from tpugraphs_rank.cli import app
from tpugraphs_rank.costs import layout_assignment
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import registry
from tpugraphs_rank.evaluation import bootstrap
from tpugraphs_rank.hlo import convert
from tpugraphs_rank.training import run_directory
from tpugraphs_rank.tuning import spaces

COLLECTION, RUN = "layout:xla_cpu:mixed:v1", "bundled:layout_xla_cpu_mixed"
RANDOM, CLIMBING, TPE, RANKED, ADAPTIVE, PRIOR = STRATEGIES = (
    "random", "climbing", "tpe", "ranked", "adaptive", "adaptive_prior")
SHOWN = (5, 10, 15, 25)
SHOWN_SECONDS = (5, 10, 20, 40)
_COMPARED = 15  # Measurements.
_NEAREST = 4
_TPE_STARTUP = 5


class Pool:
  """A program's measured configurations. Position 0 is the default."""

  def __init__(self, graph: graphs.LayoutGraph, scores: np.ndarray,
               simulated: layout_assignment.Assignment, seconds: float = 0.0) -> None:
    """Prepares what the strategies need.

    Args:
      graph: the program, with runtimes.
      scores: (c,) the ranker's.
      simulated: of this program.
      seconds: mean time of compiling and timing a configuration.
    """
    layouts = graph.layouts(np.arange(graph.num_configs)).astype(np.int8)
    self.name = graph.name
    self.seconds = seconds
    self.runtimes = np.asarray(graph.config_runtime, float)
    self.scores = scores
    self.blocks = spaces.effect_features(simulated.effects(layouts))
    slots = layouts.reshape(len(layouts), -1, 6)
    self.codes = np.stack([np.unique(slots[:, slot], axis=0, return_inverse=True)[1].ravel()
                           for slot in range(slots.shape[1])], axis=1)
    self.codes = self.codes[:, self.codes.max(axis=0) > 0]

  def part(self, share: float, seed: int) -> "Pool":
    """The default and a random share of the other configurations."""
    if share == 1:
      return self
    others = 1 + np.random.default_rng([seed, 1]).permutation(len(self.runtimes) - 1)
    kept = [0, *sorted(others[:max(round(share * len(others)), 1)])]
    result = copy.copy(self)
    result.runtimes, result.scores = self.runtimes[kept], self.scores[kept]
    sums, requests, simulated = (block[kept] for block in self.blocks)
    result.blocks = (sums, requests, simulated)
    result.codes = self.codes[kept]
    return result

  def slowdowns(self, order: list[int], measurements: int) -> np.ndarray:
    """(measurements,) how much slower the best of the first k is than the best of all."""
    best = np.minimum.accumulate(self.runtimes[order])
    best = np.concatenate([best, np.full(max(measurements - len(best), 0), best[-1])])
    return best[:measurements] / self.runtimes.min() - 1


def in_random_order(pool: Pool, count: int, seed: int) -> list[int]:
  """The default, then a random order."""
  rng = np.random.default_rng(seed)
  return [0, *(1 + rng.permutation(len(pool.runtimes) - 1))][:count]


def in_order_of_scores(pool: Pool, count: int, seed: int) -> list[int]:
  """The default, then the ranker's order."""
  del seed
  order = np.argsort(-pool.scores, kind="stable")
  return [0, *order[order != 0]][:count]


def hill_climbing(pool: Pool, count: int, seed: int) -> list[int]:
  """A random one of the nearest to the fastest so far, by the number of different requests."""
  rng = np.random.default_rng(seed)
  order, current = [0], 0
  while len(order) < min(count, len(pool.runtimes)):
    left = np.setdiff1d(np.arange(len(pool.runtimes)), order)
    distance = (pool.codes[left] != pool.codes[current]).sum(axis=1) + rng.random(len(left))
    order.append(int(rng.choice(left[np.argsort(distance)[:_NEAREST]])))
    if pool.runtimes[order[-1]] < pool.runtimes[current]:
      current = order[-1]
  return order


def tpe(pool: Pool, count: int, seed: int) -> list[int]:
  """Optuna's TPE over the requests; the nearest configuration of the pool is measured."""
  import optuna  # type: ignore[import-not-found]
  optuna.logging.set_verbosity(optuna.logging.ERROR)
  study = optuna.create_study(sampler=optuna.samplers.TPESampler(
      seed=seed, n_startup_trials=_TPE_STARTUP))
  names = [f"slot_{slot}" for slot in range(pool.codes.shape[1])]
  kinds: dict[str, Any] = {
      name: optuna.distributions.CategoricalDistribution(list(range(int(most) + 1)))
      for name, most in zip(names, pool.codes.max(axis=0))}
  order: list[int] = []
  rng = np.random.default_rng(seed)
  while len(order) < min(count, len(pool.runtimes)):
    chosen = 0
    if order:
      trial = study.ask(kinds)
      wanted = np.array([trial.params[name] for name in names])
      study.tell(trial, state=optuna.trial.TrialState.FAIL)
      left = np.setdiff1d(np.arange(len(pool.runtimes)), order)
      distance = (pool.codes[left] != wanted).sum(axis=1) + rng.random(len(left))
      chosen = int(left[np.argmin(distance)])
    order.append(chosen)
    study.add_trial(optuna.trial.create_trial(
        params={name: int(code) for name, code in zip(names, pool.codes[chosen])},
        distributions=kinds, value=float(np.log(pool.runtimes[chosen] / pool.runtimes[0]))))
  return order


def adaptive(pool: Pool, count: int, seed: int, prior: bool = False) -> list[int]:
  """The tuner."""
  tuner = tuning.Tuner(tuning.PoolSpace(*pool.blocks),
                       (lambda listed: pool.scores[list(listed)]) if prior else None, seed=seed)
  for _ in range(min(count, len(pool.runtimes))):
    configuration = int(tuner.ask())
    tuner.tell(configuration, pool.runtimes[configuration] / 1e9)
  return [int(one.configuration) for one in tuner.history]


ORDERS: dict[str, Callable[[Pool, int, int], list[int]]] = {
    RANDOM: in_random_order, CLIMBING: hill_climbing, TPE: tpe, RANKED: in_order_of_scores,
    ADAPTIVE: adaptive, PRIOR: lambda pool, count, seed: adaptive(pool, count, seed, True)}


def pools(split: str, limit: int | None = None) -> list[Pool]:
  """The measured programs of a split with the bundled ranker's scores."""
  listed = list(collections.load_collection(COLLECTION, split))[:limit]
  return _scored(listed, [0.0] * len(listed))  # type: ignore[arg-type]


def live_pools(folder: pathlib.Path) -> list[Pool]:
  """The programs that `tuning_live` measured in a folder, with the bundled ranker's scores.

  Raises:
    MissingDataError: it measured none.
  """
  listed, seconds = [], []
  for path in sorted(folder.glob("*/study.json")):
    study_of_program = files.read_json(path)
    if "random" not in study_of_program:
      continue
    passes = [path.parent / "random" / f"pass{number}.pb" for number in (1, 2)]
    (converted,) = convert.convert_file(passes[0], repeats=passes[1:]).graphs
    graph = graphs.graph_from_arrays(path.parent.name, converted.arrays)
    assert isinstance(graph, graphs.LayoutGraph)
    listed.append(graph)
    seconds.append((study_of_program["seconds"] - study_of_program["tune_seconds"])
                   / study_of_program["random"]["measured"])
  if not listed:
    raise errors.MissingDataError(
        f"{folder} has no measured programs; python -m experiments.tuning_live --output {folder} "
        "measures them")
  return _scored(listed, seconds)


def _scored(listed: list[graphs.LayoutGraph], seconds: list[float]) -> list[Pool]:
  from tpugraphs_rank.training import run as run_lib  # Imports TensorFlow.
  run = run_lib.load_run(RUN)
  facts = registry.get_collection(COLLECTION).facts
  return [Pool(graph, np.asarray(scores), layout_assignment.Assignment(graph, facts), each)
          for graph, (_, scores), each in zip(listed, run.score_each(listed), seconds)]


def study(measured: list[Pool], names: list[str], measurements: int, seeds: int,
          share: float = 1.0) -> tuple[dict[str, np.ndarray], dict[str, float]]:
  """Runs the strategies.

  Args:
    measured: the programs.
    names: of the strategies.
    measurements: of each program.
    seeds: their number.
    share: of a pool that a seed sees.

  Returns:
    For each strategy (programs, measurements) slowdowns of the best, averaged over the seeds, and
    the CPU seconds that it takes to choose a configuration.
  """
  curves: dict[str, np.ndarray] = {}
  decisions: dict[str, float] = {}
  for name in names:
    each = range(1 if name == RANKED and share == 1 else seeds)
    start = time.process_time()
    curves[name] = np.array([
        np.mean([part.slowdowns(ORDERS[name](part, measurements, seed), measurements)
                 for seed, part in ((seed, pool.part(share, seed)) for seed in each)], axis=0)
        for pool in tqdm.tqdm(measured, desc=name, unit="program", disable=None)])
    chosen = len(each) * sum(min(measurements, len(pool.runtimes)) for pool in measured)
    decisions[name] = (time.process_time() - start) / chosen
  return curves, decisions


def after_seconds(curve: np.ndarray, pool_seconds: list[float], decision: float) -> dict[str, Any]:
  """Mean slowdowns after `SHOWN_SECONDS`, with intervals over programs.

  Args:
    curve: (programs, measurements) slowdowns of the best.
    pool_seconds: for each program the seconds of compiling and timing a configuration.
    decision: seconds of choosing one.
  """
  result = {}
  for limit in SHOWN_SECONDS:
    counts = [int(limit / (each + decision)) for each in pool_seconds]
    # The default is measured in any case.
    at = [row[np.clip(count, 1, len(row)) - 1] for row, count in zip(curve, counts)]
    result[str(limit)] = bootstrap.mean_interval(np.array(at)).as_dict()
  return result


def summary(curves: dict[str, np.ndarray]) -> dict[str, Any]:
  """Mean curves, intervals over programs, and paired differences from the tuner."""
  strategies: dict[str, Any] = {}
  for name, values in curves.items():
    entry: dict[str, Any] = {"curve": values.mean(axis=0).tolist(), "at": {}}
    for count in SHOWN:
      if count <= values.shape[1]:
        at = values[:, count - 1]
        entry["at"][str(count)] = bootstrap.mean_interval(at).as_dict()
        if ADAPTIVE in curves and name != ADAPTIVE:
          entry.setdefault("more_than_adaptive", {})[str(count)] = bootstrap.mean_interval(
              at - curves[ADAPTIVE][:, count - 1]).as_dict()
    strategies[name] = entry
  return strategies


def together(several: list[dict[str, Any]]) -> dict[str, Any]:
  """Paired differences from the tuner after `_COMPARED` measurements, over all results' programs.

  Args:
    several: for each of the results its `by_program`: for each strategy and program the slowdown.
  """
  joined = {name: np.concatenate([list(of_one[name].values()) for of_one in several])
            for name in STRATEGIES if all(name in of_one for of_one in several)}
  return {name: bootstrap.mean_interval(values - joined[ADAPTIVE]).as_dict()
          for name, values in joined.items() if name != ADAPTIVE}


def together_table(results: dict[str, Any]) -> str:
  """The table of the documentation: differences over the programs of two results."""
  rows = [[f"`{name}`", f"{100 * each['mean']:.2f} ({100 * each['low']:.2f} to "
                        f"{100 * each['high']:.2f})"] for name, each in results["together"].items()]
  return tables.markdown(["strategy", f"more than `adaptive` after {_COMPARED}, paired"], rows)


def table(results: dict[str, Any]) -> str:
  """The table of the documentation: slowdown in % after some numbers of measurements."""
  rows = []
  for name, entry in results["strategies"].items():
    cells = [f"{100 * at['mean']:.2f} ({100 * at['low']:.2f} to {100 * at['high']:.2f})"
             for at in entry["at"].values()]
    paired = entry.get("more_than_adaptive", {}).get("15")
    rows.append([f"`{name}`", *cells, "-" if paired is None else
                 f"{100 * paired['mean']:.2f} ({100 * paired['low']:.2f} to "
                 f"{100 * paired['high']:.2f})"])
  counts = next(iter(results["strategies"].values()))["at"]
  return tables.markdown(
      ["strategy", *(f"after {count}" for count in counts),
       "more than `adaptive` after 15, paired"], rows)


def seconds_table(results: dict[str, Any]) -> str:
  """The table of the documentation: slowdown in % after some seconds."""
  rows = [[f"`{name}`", f"{entry['decision_seconds']:.3f}",
           *(f"{100 * at['mean']:.2f} ({100 * at['low']:.2f} to {100 * at['high']:.2f})"
             for at in entry["after_seconds"].values())]
          for name, entry in results["strategies"].items()]
  return tables.markdown(
      ["strategy", "CPU seconds of a decision", *(f"after {seconds} s" for seconds in next(
          iter(results["strategies"].values()))["after_seconds"])], rows)


def draw(results: dict[str, Any], path: files.PathLike) -> None:
  """Writes the figure of the documentation: the curves of all strategies."""
  import matplotlib
  matplotlib.use("Agg")
  from matplotlib import pyplot as plt
  with plt.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
                       "legend.frameon": False, "svg.hashsalt": "tpugraphs_rank",
                       "figure.constrained_layout.use": True}):
    figure, axis = plt.subplots(figsize=(6, 3.4))
    for name, entry in results["strategies"].items():
      curve = 100 * np.array(entry["curve"])
      axis.plot(np.arange(1, len(curve) + 1), curve, label=name,
                linewidth=2 if name == ADAPTIVE else 1.2)
    axis.set_yscale("log")
    axis.set_xlabel("measurements")
    axis.set_ylabel("slowdown of the best, %")
    axis.legend()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def define_flags() -> None:
  """Defines the flags."""
  flags.DEFINE_string("figure", None, "Only draw the figure of --results to this SVG file.")
  flags.DEFINE_enum("split", "valid", ["train", "valid", "test"], "The programs.")
  flags.DEFINE_string("pools", None, "Folder of `experiments.tuning_live`, whose programs replace "
                      "those of the split.")
  flags.DEFINE_integer("seeds", 5, "Number of seeds: 0, 1, ...", lower_bound=1)
  flags.DEFINE_integer("measurements", 25, "Measurements of a program.", lower_bound=2)
  flags.DEFINE_float("share", 1.0, "Share of each pool that a seed sees, drawn at random.",
                     lower_bound=0.1, upper_bound=1.0)
  flags.DEFINE_string("together", None, "Other results, whose programs are compared together with "
                      "these.")
  flags.DEFINE_integer("limit", None, "Maximum number of programs.")
  flags.DEFINE_string("results", None, "File of the results.")


def main(_: list[str]) -> None:
  """Runs the study."""
  values = flags.FLAGS
  if values.figure:
    draw(files.read_json(values.results), values.figure)
    return
  names = list(STRATEGIES)
  if importlib.util.find_spec("optuna") is None:
    logging.getLogger("tpugraphs_rank").warning("Optuna is not installed; TPE is left out")
    names.remove(TPE)
  measured = live_pools(pathlib.Path(values.pools)) if values.pools else pools(
      values.split, values.limit)
  curves, decisions = study(measured, names, values.measurements, values.seeds, values.share)
  strategies = summary(curves)
  if values.pools:
    seconds = [pool.seconds for pool in measured]
    for name, entry in strategies.items():
      entry["decision_seconds"] = decisions[name]
      entry["after_seconds"] = after_seconds(curves[name], seconds, decisions[name])
    about = {"names": [pool.name for pool in measured], "measurement_seconds": seconds,
             "configurations": [len(pool.runtimes) for pool in measured]}
  else:
    about = {"split": values.split, "collection": COLLECTION}
  results = {**run_directory.environment(), "seeds": list(range(values.seeds)), **about,
             "run": RUN, "programs": len(measured), "measurements": values.measurements,
             "share": values.share,
             "figure": "runtime of the best measured / of the best of the pool - 1",
             "by_program": {name: {
                 pool.name: row[min(_COMPARED, len(row)) - 1]
                 for pool, row in zip(measured, values_of)} for name, values_of in curves.items()},
             "strategies": strategies}
  if values.together:
    others = files.read_json(values.together)
    results["together"] = together([others["by_program"], results["by_program"]])
  if values.results:
    files.write_json(values.results, results)
  print(table(results))


if __name__ == "__main__":
  app.run(main, define_flags)
