"""An ensemble: several models that train independently and whose scores are averaged."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from tpugraphs_rank.data import batches
from tpugraphs_rank.models import interface


class Ensemble(interface.SegmentTraining, interface.DistinctStates):
  """A deep ensemble (Lakshminarayanan et al., NeurIPS 2017) of any models, itself a model.

  Members differ in their initial weights and their dropout. The loss is the mean of the members'
  losses, not the loss of the mean score, so that each member learns to rank by itself. Losses that
  fix the scale of scores (ListMLE, the regression term) make the members' scores comparable.

  An ensemble supports the capabilities that its members support.
  """

  def __init__(self, members: Sequence[interface.RankingModel]):
    """Joins models of one class and with the same settings.

    Args:
      members: the models. The loss is a mean over them, and `losses` of Keras are summed, so each
        has the l2 of a single model divided by the number of members.
    """
    first = members[0]
    super().__init__(first.kind, first.settings, first.l2)
    self._members = list(members)

  @property
  def members(self) -> list[interface.RankingModel]:
    return list(self._members)

  def required_inputs(self) -> Sequence[str]:
    return self._members[0].required_inputs()

  @property
  def reference_size(self) -> int:
    return self._members[0].reference_size

  @property
  def supports_segments(self) -> bool:
    return self._members[0].supports_segments

  @property
  def supports_partition(self) -> bool:
    return self._members[0].supports_partition

  @property
  def supports_distinct_states(self) -> bool:
    return self._members[0].supports_distinct_states

  @property
  def why_plain(self) -> str:
    return self._members[0].why_plain

  @property
  def numbers_per_state(self) -> int:
    # TensorFlow may compute two members at a time.
    return 2 * self._first.numbers_per_state

  @property
  def pooled_levels(self) -> tuple[int, ...]:
    return self._first.pooled_levels

  @property
  def _first(self) -> Any:
    """A member with the capabilities that the caller has asked for."""
    return self._members[0]

  def arrange(self, batch: batches.Batch) -> batches.Batch:
    return self._members[0].arrange(batch)

  def select_inputs(self, arrays: Mapping[str, Any], training: bool = False,
                    dropout_seed: tf.Tensor | None = None) -> dict[str, Any]:
    return self._members[0].select_inputs(arrays, training, dropout_seed)

  def call(self, batch: Mapping[str, Any]) -> tf.Tensor:
    """Scores [B, C]: the mean of the members' scores."""
    return _mean(self._scores(batch))

  def member_scores(self, arrays: Mapping[str, Any], training: bool = False,
                    dropout_seed: tf.Tensor | None = None) -> list[tf.Tensor]:
    return self._scores(self.select_inputs(arrays, training, dropout_seed))

  def _scores(self, batch: Mapping[str, Any]) -> list[tf.Tensor]:
    """The scores of each member, which has a dropout of its own."""
    seed = batch.get("dropout_seed")
    return [member(batch if seed is None else
                   {**batch, "dropout_seed": seed + [number * 104_729, 0]})
            for number, member in enumerate(self._members)]

  def config_independent_part(self, arrays: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """As of a member; each member's tensors have its number as a prefix."""
    return {f"{number}/{key}": value for number, member in enumerate(self._members)
            for key, value in _partitioned(member).config_independent_part(arrays).items()}

  def config_dependent_part(self, arrays: Mapping[str, tf.Tensor],
                            independent: Mapping[str, tf.Tensor]) -> tf.Tensor:
    return self._each(independent, lambda member, part: member.config_dependent_part(arrays, part))

  def distinct_states_part(self, arrays: Mapping[str, tf.Tensor],
                           independent: Mapping[str, tf.Tensor],
                           distinct: Mapping[str, tf.Tensor]) -> tf.Tensor:
    return self._each(
        independent, lambda member, part: member.distinct_states_part(arrays, part, distinct))

  def _each(self, independent: Mapping[str, tf.Tensor], score: Callable[..., tf.Tensor]
            ) -> tf.Tensor:
    """The mean of a function of each member and its part of the tensors."""
    scores = []
    for number, member in enumerate(self._members):
      prefix = f"{number}/"
      scores.append(score(member, {key[len(prefix):]: value for key, value in independent.items()
                                   if key.startswith(prefix)}))
    return _mean(scores)


def _partitioned(member: Any) -> interface.Partitioned:
  return member


def _mean(scores: Sequence[tf.Tensor]) -> tf.Tensor:
  return tf.add_n(scores) / len(scores)
