"""What a run fits once its networks are trained: boosted trees, and the analytic prior of tiles."""

from collections.abc import Sequence
import logging

from tpugraphs_rank import run_config
from tpugraphs_rank.data import batches
from tpugraphs_rank.data import registry
from tpugraphs_rank.data import splits
from tpugraphs_rank.training import prior_fitting
from tpugraphs_rank.training import run as run_lib
from tpugraphs_rank.training import run_directory
from tpugraphs_rank.training import tile_prior
from tpugraphs_rank.training import tree_member

_logger = logging.getLogger(__name__)


def fit(directory: run_directory.RunDirectory, config: run_config.RunConfig,
        collection: registry.Collection, train: Sequence[batches.PreparedGraph],
        valid: Sequence[batches.PreparedGraph]) -> None:
  """Writes what the settings ask for and what does not exist yet.

  Args:
    directory: of the run, with its best checkpoint.
    config: of the run.
    collection: of the real graphs.
    train, valid: the prepared real graphs.
  """
  views = [[splits.ProgramView(member.graph, member.choice, member.runtimes, collection.facts)
            for member in members] for members in (train, valid)]
  _fit_trees(directory, config, collection, *views)
  _fit_prior(directory, config, collection, views[0])


def _fit_trees(directory: run_directory.RunDirectory, config: run_config.RunConfig,
               collection: registry.Collection, train: Sequence[splits.ProgramView],
               valid: Sequence[splits.ProgramView]) -> None:
  """Writes the boosted trees of the ensemble."""
  model, seed = config.model, config.training.seed
  if not model.trees_weight or (directory / tree_member.FILE).exists():
    return
  _logger.info("fitting the boosted trees of the ensemble")
  networks = run_lib.Run(directory, prior=tile_prior.NONE, networks_only=True).score_programs(
      tree_member.sample(train, seed))
  tree_member.write(directory, tree_member.fit(
      train, valid, networks, model.trees_weight, collection.facts, seed))


def _fit_prior(directory: run_directory.RunDirectory, config: run_config.RunConfig,
               collection: registry.Collection, programs: Sequence[splits.ProgramView]) -> None:
  """Writes the analytic prior of tiles."""
  if config.model.prior == tile_prior.NONE or collection.kind != "tile" or (
      directory / tile_prior.FILE).exists():
    return
  reason = prior_fitting.reason_without(collection, programs)
  if reason:
    _logger.info("no analytic prior: %s", reason)
    return
  _logger.info("fitting the analytic prior on held-out groups of the training programs")
  run = run_lib.Run(directory, prior=tile_prior.NONE)
  # The folds do not depend on the run's seed: runs that differ in their seed share the gate, and
  # the time to choose it.
  tile_prior.write(directory, prior_fitting.fit(
      collection, programs, run.score_programs, costs=config.model.tile_features == "costs"))
