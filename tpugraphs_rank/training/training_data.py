"""The graphs of a training run: read, scaled, and prepared for batches."""

from collections.abc import Mapping, Sequence
import dataclasses

from tpugraphs_rank import errors
from tpugraphs_rank import run_config
from tpugraphs_rank.data import batches
from tpugraphs_rank.data import mixing
from tpugraphs_rank.data import normalize
from tpugraphs_rank.data import published
from tpugraphs_rank.data import registry
from tpugraphs_rank.data import splits
from tpugraphs_rank.evaluation import lambdarank
from tpugraphs_rank.training import kind_settings
from tpugraphs_rank.training import run_directory


@dataclasses.dataclass(frozen=True)
class TrainingData:
  """Everything that training reads.

  Attributes:
    counts: for each split what was read and what was left out.
    normalizer: feature scaling.
    train, valid: the prepared real graphs.
    synthetic: the prepared synthetic graphs; empty without augmentation.
  """

  counts: Mapping[str, splits.Counts]
  normalizer: normalize.Normalizer
  train: list[batches.PreparedGraph]
  valid: list[batches.PreparedGraph]
  synthetic: list[batches.PreparedGraph]

  def steps_per_epoch(self, config: run_config.RunConfig) -> int:
    """Training steps per epoch. Only real programs count, so that runs with and without synthetic
    programs are comparable."""
    batch = config.batch
    return config.training.steps_per_epoch or -(
        -len(self.train) * batch.lists_per_graph // batch.batch_size)


def load(config: run_config.RunConfig, collection: registry.Collection) -> TrainingData:
  """Reads the programs, fits or loads the normalizer, and prepares the graphs.

  Raises:
    TpuGraphsRankError: bad data, or settings that do not fit the collection.
  """
  loaded = _load_splits(config, collection)
  programs = {split: result.programs for split, result in loaded.items()}
  normalizer = _normalizer(config, collection, programs["train"], programs.get("synthetic", ()))
  cut = config.batch.segment_mode in ("drop", "backprop")
  max_nodes = config.batch.max_nodes if cut else None
  prepare = lambda split: [
      batches.prepare(program, normalizer, max_nodes) for program in programs.get(split, ())]
  # Validation lists go through the training step's signature, which may include segments.
  return TrainingData({split: result.counts for split, result in loaded.items()}, normalizer,
                      prepare("train"), prepare("valid"), prepare("synthetic"))


def _load_splits(config: run_config.RunConfig, collection: registry.Collection
                 ) -> dict[str, splits.Loaded]:
  _check_published(config, collection)
  seed = config.training.seed
  loaded = {split: splits.load(config.data, split, seed, config.batch.max_configs)
            for split in ("train", "valid")}
  if config.training.validation_configs == "published":
    loaded["valid"] = loaded["valid"]._replace(programs=published.restrict(
        loaded["valid"].programs, collection, config.data.data_root))
  if config.augment.synthetic is not None:
    loaded["synthetic"] = mixing.load_synthetic(config, collection, loaded["valid"].programs)
  return loaded


def _normalizer(config: run_config.RunConfig, collection: registry.Collection,
                train: Sequence[splits.ProgramView],
                synthetic: Sequence[splits.ProgramView]) -> normalize.Normalizer:
  facts = collection.facts if config.model.layout_costs != "none" else None
  initial = config.training.initial_checkpoint
  if initial is not None:
    # The facts are those of this run's collection; they are not fitted.
    return dataclasses.replace(normalize.Normalizer.load(
        run_directory.RunDirectory(initial) / "normalizer.npz"), facts=facts)
  fitted_on = mixing.training_programs(config, train, synthetic)
  return normalize.Normalizer.fit([program.graph for program in fitted_on],
                                  [program.choice for program in fitted_on],
                                  costs=config.model.tile_features == "costs", facts=facts)


def _check_published(config: run_config.RunConfig, collection: registry.Collection) -> None:
  """Raises ConfigError if the run asks for published configurations and there are none."""
  if config.training.validation_configs != "published" or (
      config.data.split_by == "program" and published.is_published(collection, "valid")):
    return
  raise errors.ConfigError(
      f"training.validation_configs is 'published', but nothing is published for {collection.name} "
      f"with split_by={config.data.split_by}, only for {', '.join(published.COLLECTIONS)}, split "
      "by program; use --validation_configs=all")


def check(config: run_config.RunConfig) -> None:
  """Raises ConfigError if settings do not fit together."""
  if len(config.loss.losses) != len(config.loss.loss_weights):
    raise errors.ConfigError(
        f"loss.losses names {len(config.loss.losses)} losses, loss.loss_weights gives "
        f"{len(config.loss.loss_weights)} weights; expected one weight for each loss")
  if not config.loss.losses:
    raise errors.ConfigError("loss.losses is empty; expected at least one loss")
  if not config.model.pooling:
    raise errors.ConfigError("model.pooling is empty; expected at least one pooling")
  if config.model.trees_weight:
    _check_trees(config.model.trees_objectives)
  mixing.check(config)
  for number, kind in enumerate(kind_settings.of(config), start=1):
    try:
      check(kind)
    except errors.ConfigError as error:
      raise errors.ConfigError(f"kinds: kind {number}: {error}") from None
  if config.data.train_fraction + config.data.valid_fraction >= 1.0:
    raise errors.ConfigError(
        "data.train_fraction + data.valid_fraction leave no configurations to test; expected a sum "
        "below 1")


def _check_trees(objectives: Sequence[str]) -> None:
  """Raises ConfigError unless the trees can learn these objectives: before the networks train."""
  if not objectives or len(set(objectives)) < len(objectives):
    raise errors.ConfigError(
        f"model.trees_objectives is {','.join(objectives) or 'empty'}; expected one or more of: "
        f"{', '.join(run_config.TREES_OBJECTIVES)}, each once")
  if run_config.LAMBDARANK in objectives:
    lambdarank.check()
