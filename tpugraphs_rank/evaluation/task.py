"""What is judged: the programs of a split, what training saw, and the baselines on the same."""

from collections.abc import Sequence
import dataclasses
import logging
from typing import AbstractSet

import numpy as np
import pandas as pd
import tqdm

from tpugraphs_rank import errors
from tpugraphs_rank import run_config
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import published
from tpugraphs_rank.data import registry
from tpugraphs_rank.data import splits
from tpugraphs_rank.evaluation import baselines
from tpugraphs_rank.evaluation import noise
from tpugraphs_rank.evaluation import per_graph
from tpugraphs_rank.evaluation import trees

_logger = logging.getLogger(__name__)

# Fits whose scores are averaged: models are averages of several networks too.
_TREE_MEMBERS = 3

Scores = list[np.ndarray]  # For each program (c',), higher = predicted faster.

# Which configurations of a graph are judged.
ALL = "all"
PUBLISHED = "published"
CONFIGURATIONS = (ALL, PUBLISHED)

NEW_PROGRAMS = "programs that training never saw"
NEW_CONFIGURATIONS = "new configurations of known programs"


@dataclasses.dataclass(frozen=True)
class Task:
  """The programs of a split, and how they relate to the training split.

  Attributes:
    config: the data of the run that is judged.
    collection: its collection.
    split: "valid" or "test" (or "train").
    seed: of the run: it divides configurations, and draws programs.
    programs: the graphs, and which of their configurations take part.
    seen_groups: groups with a family in training; None where the training split is not there.
    configurations: ALL, or PUBLISHED: those that the published layout figures are computed on.
    train: the programs that train, where they had to be read to know them.
    seen_families: families in training; None where the training split is not there.
  """

  config: run_config.DataConfig
  collection: registry.Collection
  split: str
  seed: int
  programs: tuple[splits.ProgramView, ...]
  seen_groups: AbstractSet[str] | None
  configurations: str = ALL
  train: tuple[splits.ProgramView, ...] | None = None
  seen_families: AbstractSet[str] | None = None

  @property
  def held_back(self) -> str:
    """What the split holds back from training, in words."""
    if self.config.split_by == "configuration":
      return NEW_CONFIGURATIONS
    return NEW_PROGRAMS if self.split != "train" else "programs that training saw"

  def judge(self, scores: Sequence[np.ndarray], raw: bool = False) -> pd.DataFrame:
    """`per_graph.evaluate` of scores of `programs`."""
    return per_graph.evaluate(self.programs, scores, self.collection, self.seen_groups, raw)

  def noise_ceilings(self, seed: int = 0) -> dict[str, noise.NoiseCeiling]:
    """For each graph what the repeats of its configurations allow on this split."""
    return {
        program.graph.name: noise.noise_ceiling(
            per_graph.runtimes_of(splits.ProgramView(program.graph)), program.graph.config_keys(),
            program.choice, seed=seed)
        for program in self.programs}


def load_task(config: run_config.DataConfig, split: str, seed: int = 0,
              configurations: str | None = None) -> Task:
  """Reads the programs of a split, and finds out which groups training saw.

  Args:
    config: which collection, and how it is divided.
    split: "train", "valid" or "test".
    seed: the seed of the run that is judged.
    configurations: ALL or PUBLISHED; None: PUBLISHED where such are published for whole programs
      (the validation splits of the public layout collections), otherwise ALL.

  Raises:
    ConfigError: PUBLISHED is asked for where nothing is published.
    MissingDataError: the file of published indices is not there.
    DataError: the split has no runtimes (the public test splits hold none).
    TpuGraphsRankError: as `splits.load_programs`.
  """
  collection = registry.get_collection(config.collection)
  there_are = config.split_by == "program" and published.is_published(collection, split)
  if configurations is None:
    configurations = PUBLISHED if there_are else ALL
  if configurations == PUBLISHED and not there_are:
    raise errors.ConfigError(
        f"no evaluation indices are published for {collection.name} {split} with "
        f"--split_by={config.split_by}; they are for the {published.SPLIT} splits of "
        f"{', '.join(published.COLLECTIONS)}, divided by program: use --configurations=all")
  if config.split_by == "program" and not collection.has_runtimes.get(split, True):
    instead = "evaluate with `--split valid`, or " if collection.has_runtimes.get("valid") else ""
    raise errors.DataError(
        f"{collection.name} {split} holds no measurements, so no ranking of it can be judged; "
        f"{instead}rank it without judging: `python -m tpugraphs_rank.cli.predict`")
  # Whatever training makes of equal configurations, they are judged as published.
  programs = splits.load_programs(
      dataclasses.replace(config, duplicates="keep"), split, seed)
  if configurations == PUBLISHED:
    programs = published.restrict(programs, collection, config.data_root)
  stems, train = _training(config, collection, seed)
  seen_groups, seen_families = (None, None) if stems is None else (
      per_graph.training_groups(collection, stems), {collection.family(stem) for stem in stems})
  return Task(config, collection, split, seed, tuple(programs), seen_groups, configurations, train,
              seen_families)


def _training(config: run_config.DataConfig, collection: registry.Collection, seed: int
              ) -> tuple[list[str] | None, tuple[splits.ProgramView, ...] | None]:
  """The names of training's programs; and these, where only they tell the names."""
  train: tuple[splits.ProgramView, ...] | None = None
  try:
    if config.split_by == "configuration" and registry.WHOLE in collection.splits:
      stored = registry.WHOLE
    else:
      stored = "train"
    if config.max_graphs is not None and stored == "train":
      # Which are drawn depends on what the files hold: some have too few configurations.
      train = tuple(splits.load_programs(config, "train", seed))
      stems = [program.graph.name for program in train]
    else:
      stems = [path.stem for path in collections.load_collection(
          collection, stored, config.data_root, config.packed, config.packed_root).paths]
  except errors.MissingDataError as error:
    _logger.warning("seen and unseen groups are not told apart: %s", error)
    return None, None
  return stems, train


def baseline_scores(task: Task, names: Sequence[str] = baselines.NAMES, seeds: Sequence[int] = (0,)
                    ) -> dict[str, list[Scores]]:
  """Scores of baselines for the programs of a task.

  The boosted trees' hyperparameters are chosen on the validation split, once, with the first
  seed; where that is the split that is judged, on the very configurations that are judged (of many,
  some), which flatters them. A baseline without randomness has one entry, whatever the seeds.
  `default_configuration` is left out where no program has an identifiable default, and warned about
  where some lack it.

  Args:
    task: the programs.
    names: of `baselines.NAMES`.
    seeds: one entry each.

  Returns:
    For each baseline, for each seed, for each program (c',), in the order of `names`.

  Raises:
    UnknownNameError: there is no such baseline.
    MissingDataError: the trees' training data is not there.
  """
  found: dict[str, list[Scores]] = {}
  for name in baselines.check_names(names):
    if name == baselines.BOOSTED_TREES:
      found[name] = _tree_scores(task, seeds)
    elif name != "default_configuration" or _defaults(task):
      own = seeds[:1] if name in baselines.DETERMINISTIC else seeds
      found[name] = [baselines.trivial(name, task.programs, seed) for seed in own]
  return found


def _defaults(task: Task) -> bool:
  """Whether some program has an identifiable default; logs how many have none."""
  lacking = sum(not baselines.has_default(program) for program in task.programs)
  if lacking == len(task.programs):
    _logger.warning("default_configuration is left out: no graph has its default among the "
                    "configurations that are judged")
  elif lacking:
    _logger.warning("default_configuration: %d of %d graphs have no identifiable default, and are "
                    "ranked at random", lacking, len(task.programs))
  return lacking < len(task.programs)


def _tree_scores(task: Task, seeds: Sequence[int]) -> list[Scores]:
  # What the task has read already is not read again.
  train = task.train or splits.load_programs(task.config, "train", task.seed)
  valid = (task.programs if task.split == "valid"
           else splits.load_programs(task.config, "valid", task.seed))
  settings = trees.tune(train, valid, seed=seeds[0])
  found: list[Scores] = []
  with tqdm.tqdm(desc="fitting boosted_trees", total=_TREE_MEMBERS * len(seeds), unit="fit",
                 disable=None, leave=False) as progress:
    for seed in seeds:
      members: list[Scores] = []
      for member in range(_TREE_MEMBERS):
        fitted = trees.fit(train, settings, _TREE_MEMBERS * seed + member)
        members.append(fitted.score(task.programs))
        progress.update()
      found.append([np.mean(scores, axis=0) for scores in zip(*members)])
  return found
