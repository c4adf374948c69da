"""What a run fits once its networks are trained: how kinds are averaged, boosted trees, a prior."""

from collections.abc import Mapping, Sequence
import logging

from tpugraphs_rank import run_config
from tpugraphs_rank.data import batches
from tpugraphs_rank.data import registry
from tpugraphs_rank.data import splits
from tpugraphs_rank.training import evidence_files
from tpugraphs_rank.training import kinds as kinds_lib
from tpugraphs_rank.training import kinds_file
from tpugraphs_rank.training import networks as networks_lib
from tpugraphs_rank.training import prior_fitting
from tpugraphs_rank.training import run as run_lib
from tpugraphs_rank.training import run_directory
from tpugraphs_rank.training import tile_prior
from tpugraphs_rank.training import tree_member
from tpugraphs_rank.training import validation

_logger = logging.getLogger(__name__)


def fit(directory: run_directory.RunDirectory, config: run_config.RunConfig,
        collection: registry.Collection, train: Sequence[batches.PreparedGraph],
        valid: Sequence[batches.PreparedGraph]) -> Mapping[str, float | None]:
  """Writes what the settings ask for and what does not exist yet.

  Args:
    directory: of the run, with its best checkpoint and those of its further kinds.
    config: of the run.
    collection: of the real graphs.
    train, valid: the prepared real graphs.

  Returns:
    The validation metrics of the mean over all kinds; empty if there is only one kind.
  """
  views = [[splits.ProgramView(member.graph, member.choice, member.runtimes, collection.facts)
            for member in members] for members in (train, valid)]
  metrics = _fit_members(directory, config, collection, views[0], views[1], valid)
  _fit_prior(directory, config, collection, *views)
  return metrics


def _fit_members(directory: run_directory.RunDirectory, config: run_config.RunConfig,
                 collection: registry.Collection, train: Sequence[splits.ProgramView],
                 valid: Sequence[splits.ProgramView], prepared: Sequence[batches.PreparedGraph]
                 ) -> Mapping[str, float | None]:
  """Writes how the kinds are averaged, the boosted trees, and the calibration of all together."""
  seed, weight = config.training.seed, config.model.trees_weight
  new_kinds = bool(config.model.kinds) and not (directory / kinds_file.FILE).exists()
  new_trees = bool(weight) and not (directory / tree_member.FILE).exists()
  if not config.model.kinds and not new_trees:
    return {}
  own = networks_lib.Networks(directory)
  sample = tree_member.sample(train, seed)
  kinds = kinds_lib.fit(own, sample) if new_kinds else kinds_lib.read(own)
  if not new_kinds and not new_trees:
    return {} if kinds is None else kinds.metrics
  scores = own.scores(valid)
  metrics: Mapping[str, float | None] = {}
  if kinds is not None:
    scores, name = kinds.add(valid, scores), config.training.validation_metric
    metrics = kinds.metrics
    if new_kinds:
      metrics = validation.ranking_metrics(prepared, scores, name)
      _logger.info("all kinds together: %s %s", name, metrics[name])
  if new_trees:
    _logger.info("fitting the boosted trees of the ensemble")
  trees = (tree_member.fit(train, valid, own.scores(sample), weight, config.model.trees_objectives,
                           collection.facts, seed)
           if new_trees else tree_member.read(directory))
  if trees is not None:
    scores = [trees.add(values, trees.scores(program.graph, program.choice))
              for program, values in zip(valid, scores)]
  # The leads that are calibrated are those of all members. This comes before the files that say
  # that the members are there: if it is interrupted, all of it is done again.
  evidence_files.write(directory, evidence_files.of_prepared(prepared, scores))
  if new_kinds:
    assert kinds is not None
    kinds_file.write(directory / kinds_file.FILE, kinds_file.Averaging(kinds.deviations, metrics))
  if new_trees:
    assert trees is not None
    tree_member.write(directory, trees)
  return metrics


def _fit_prior(directory: run_directory.RunDirectory, config: run_config.RunConfig,
               collection: registry.Collection, train: Sequence[splits.ProgramView],
               valid: Sequence[splits.ProgramView]) -> None:
  """Writes the analytic prior of tiles."""
  if config.model.prior == tile_prior.NONE or collection.kind != "tile" or (
      directory / tile_prior.FILE).exists():
    return
  reason = prior_fitting.reason_without(collection, train)
  if reason:
    _logger.info("no analytic prior: %s", reason)
    return
  _logger.info("fitting the analytic prior on held-out groups of the training programs")
  run = run_lib.Run(directory, prior=tile_prior.NONE)
  # The folds do not depend on the run's seed: runs that differ in their seed share the predictions
  # for held-out groups, and the time that these take.
  tile_prior.write(directory, prior_fitting.fit(
      collection, train, run.score_programs, valid,
      costs=config.model.tile_features == "costs"))
