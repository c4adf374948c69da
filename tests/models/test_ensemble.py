"""Several rankers in one: the mean of the scores, the mean of the losses."""

import numpy as np
import pytest
import tensorflow as tf

from tests.models import small_batches
from tpugraphs_rank import models
from tpugraphs_rank.data import batches
from tpugraphs_rank.data import pipeline
from tpugraphs_rank.training import steps as steps_lib


@pytest.mark.parametrize("kind", ["tile", "layout"])
@pytest.mark.parametrize("model", ["residual_gnn", "attention_gnn"])
def test_scores_are_the_mean_of_the_members(kind, model):
  case = small_batches.Case(kind, model_model=model, model_members=3)
  assert isinstance(case.model, models.Ensemble)
  assert case.model.kind == kind
  batch, _ = next(batches.scoring_batches(case.prepared(), 5, case.model.reference_size))
  step = pipeline.to_step(batch)
  members = [member(step).numpy() for member in case.model.members]
  assert len(members) == 3
  assert not np.allclose(members[0], members[1])
  small_batches.close(case.model(step).numpy(), np.mean(members, axis=0))


def test_one_member_is_a_plain_ranker():
  assert isinstance(models.build_model("tile", small_batches.settings()), models.Ranker)


def test_the_loss_is_the_mean_of_the_members_losses():
  case = small_batches.Case("tile", model_members=2, loss_l2_regularization=0.0)
  arrays = batches.training_batch(case.prepared(), case.config.batch, np.random.default_rng(0))
  spec = {key: tf.TensorSpec(value.shape, value.dtype) for key, value in arrays.items()}
  stepper = steps_lib.Stepper(case.model, case.config, 10, spec)
  actual = float(stepper.validate({key: tf.constant(value) for key, value in arrays.items()}))
  step = pipeline.to_step(arrays)
  own = [float(tf.reduce_mean(stepper._loss(step, member(step))))
         for member in case.model.members]
  assert own[0] != pytest.approx(own[1], rel=1e-3)
  assert actual == pytest.approx(np.mean(own), rel=1e-5)


def test_members_start_from_different_weights():
  model = models.build_model("tile", small_batches.settings(model_members=2))
  case = small_batches.Case("tile")
  batch, _ = next(batches.scoring_batches(case.prepared(), 5, 0))
  model.create_variables(batch)
  first, second = (member._node_projection.kernel.numpy() for member in model.members)
  assert not np.allclose(first, second)
