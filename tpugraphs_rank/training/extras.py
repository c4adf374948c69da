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
  metrics = _fit_kinds(directory, config, views[0], views[1], valid)
  _fit_trees(directory, config, collection, views[0], views[1], valid)
  _fit_prior(directory, config, collection, *views)
  return metrics


def _fit_kinds(directory: run_directory.RunDirectory, config: run_config.RunConfig,
               train: Sequence[splits.ProgramView], valid: Sequence[splits.ProgramView],
               prepared: Sequence[batches.PreparedGraph]) -> Mapping[str, float | None]:
  """Writes how the kinds are averaged, and the calibration of the mean."""
  if not config.model.kinds:
    return {}
  own = networks_lib.Networks(directory)
  if (directory / kinds_file.FILE).exists():
    stored = kinds_lib.read(own)
    return {} if stored is None else stored.metrics
  fitted = kinds_lib.fit(own, tree_member.sample(train, config.training.seed))
  scores = fitted.add(valid, own.scores(valid))
  metrics = validation.ranking_metrics(prepared, scores, config.training.validation_metric)
  name = config.training.validation_metric
  _logger.info("all kinds together: %s %s", name, metrics[name])
  # Before the file that says that all is done.
  evidence_files.write(directory, evidence_files.of_prepared(prepared, scores))
  kinds_file.write(directory / kinds_file.FILE, kinds_file.Averaging(fitted.deviations, metrics))
  return metrics


def _fit_trees(directory: run_directory.RunDirectory, config: run_config.RunConfig,
               collection: registry.Collection, train: Sequence[splits.ProgramView],
               valid: Sequence[splits.ProgramView], prepared: Sequence[batches.PreparedGraph]
               ) -> None:
  """Writes the boosted trees of the ensemble, and the calibration with them."""
  model, seed = config.model, config.training.seed
  if not model.trees_weight or (directory / tree_member.FILE).exists():
    return
  _logger.info("fitting the boosted trees of the ensemble")
  own = networks_lib.Networks(directory)
  fitted = tree_member.fit(train, valid, own.scores(tree_member.sample(train, seed)),
                           model.trees_weight, collection.facts, seed)
  learned, kinds = own.scores(valid), kinds_lib.read(own)
  if kinds is not None:
    learned = kinds.add(valid, learned)
  # Trees make scores, and so the leads that are calibrated, larger.
  evidence_files.write(directory, evidence_files.of_prepared(prepared, [
      fitted.add(values, fitted.scores(program.graph, program.choice))
      for program, values in zip(valid, learned)]))
  tree_member.write(directory, fitted)


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
  # The folds do not depend on the run's seed: runs that differ in their seed share the gate, and
  # the time to choose it.
  tile_prior.write(directory, prior_fitting.fit(
      collection, train, run.score_programs, valid,
      costs=config.model.tile_features == "costs"))
