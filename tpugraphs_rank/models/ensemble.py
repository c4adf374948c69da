"""Several rankers in one: each learns for itself, and their scores are averaged."""

from collections.abc import Callable, Mapping

import tensorflow as tf

from tpugraphs_rank import run_config
from tpugraphs_rank.data import batches
from tpugraphs_rank.models import ranker


class Members(tf.keras.Model):
  """A deep ensemble (Lakshminarayanan et al., NeurIPS 2017) with the interface of a `Ranker`.

  Members differ in their initial weights and their dropout. The loss is the mean of their own
  losses, not the loss of the mean, which would let them lean on one another. Losses that fix the
  scale of scores (ListMLE, the regression term) make them comparable.
  """

  def __init__(self, kind: str, config: run_config.ModelConfig, l2: float = 0.0):
    """Makes `config.members` rankers; arguments as of `Ranker`."""
    super().__init__(name=f"{config.model}_members")
    # The loss is a mean over members, so their regularisation is one too.
    l2 /= config.members
    self._members = [ranker.Ranker(kind, config, l2) for _ in range(config.members)]

  @property
  def rankers(self) -> list[ranker.Ranker]:
    """The members."""
    return list(self._members)

  @property
  def kind(self) -> str:
    return self._members[0].kind

  @property
  def reference_size(self) -> int:
    return self._members[0].reference_size

  def arrange(self, batch: batches.Batch) -> batches.Batch:
    """The arrays of a batch of `data.batches` as this model takes them."""
    return self._members[0].arrange(batch)

  @property
  def mixes_nodes(self) -> bool:
    return self._members[0].mixes_nodes

  @property
  def state_numbers(self) -> int:
    """As of `Ranker`; TensorFlow may compute two members at a time."""
    return 2 * self._members[0].state_numbers

  @property
  def tells_states_apart(self) -> bool:
    return self._members[0].tells_states_apart

  @property
  def pooled_levels(self) -> tuple[int, ...]:
    return self._members[0].pooled_levels

  def shared_part(self, graph: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """As of `Ranker`, each member's under its number."""
    return {f"{number}/{key}": value for number, member in enumerate(self._members)
            for key, value in member.shared_part(graph).items()}

  def own_part(self, graph: Mapping[str, tf.Tensor], kept: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """As of `Ranker`: the mean of the members' scores."""
    return self._mean(kept, lambda member, part: member.own_part(graph, part))

  def distinct_part(self, graph: Mapping[str, tf.Tensor], kept: Mapping[str, tf.Tensor],
                    listed: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """As of `Ranker`: the mean of the members' scores."""
    return self._mean(kept, lambda member, part: member.distinct_part(graph, part, listed))

  def _mean(self, kept: Mapping[str, tf.Tensor], score: Callable[..., tf.Tensor]) -> tf.Tensor:
    scores = []
    for number, member in enumerate(self._members):
      prefix = f"{number}/"
      scores.append(score(member, {key[len(prefix):]: value for key, value in kept.items()
                                   if key.startswith(prefix)}))
    return tf.add_n(scores) / len(scores)

  def call(self, graph: ranker.Input, segment: ranker.Input | None = None,
           segment_node_ids: tf.Tensor | None = None,
           dropout_seed: tf.Tensor | None = None) -> tf.Tensor:
    """Scores [B, C]: the mean of the members' scores."""
    scores = self.member_scores(graph, segment, segment_node_ids, dropout_seed)
    return tf.add_n(scores) / len(scores)

  def member_scores(self, graph: ranker.Input, segment: ranker.Input | None = None,
                    segment_node_ids: tf.Tensor | None = None,
                    dropout_seed: tf.Tensor | None = None) -> list[tf.Tensor]:
    """Scores [B, C] of each member; arguments as of `Ranker.call`."""
    return [
        member(graph, segment=segment, segment_node_ids=segment_node_ids,
               dropout_seed=None if dropout_seed is None else dropout_seed + [number * 104_729, 0])
        for number, member in enumerate(self._members)]
