"""Several rankers in one: each learns for itself, and their scores are averaged."""

from typing import List, Optional

import tensorflow as tf
import tensorflow_gnn as tfgnn

from tpugraphs_rank import run_config
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
  def kind(self) -> str:
    return self._members[0].kind

  @property
  def reference_size(self) -> int:
    return self._members[0].reference_size

  def call(self, graph: tfgnn.GraphTensor, segment: Optional[tfgnn.GraphTensor] = None,
           segment_node_ids: Optional[tf.Tensor] = None,
           dropout_seed: Optional[tf.Tensor] = None) -> tf.Tensor:
    """Scores [B, C]: the mean of the members' scores."""
    scores = self.member_scores(graph, segment, segment_node_ids, dropout_seed)
    return tf.add_n(scores) / len(scores)

  def member_scores(self, graph: tfgnn.GraphTensor, segment: Optional[tfgnn.GraphTensor] = None,
                    segment_node_ids: Optional[tf.Tensor] = None,
                    dropout_seed: Optional[tf.Tensor] = None) -> List[tf.Tensor]:
    """Scores [B, C] of each member; arguments as of `Ranker.call`."""
    return [
        member(graph, segment=segment, segment_node_ids=segment_node_ids,
               dropout_seed=None if dropout_seed is None else dropout_seed + [number * 104_729, 0])
        for number, member in enumerate(self._members)]
