"""Figures by main operation, and leads against the default."""

import json

import numpy as np
import pytest

from tpugraphs_rank import errors
from tpugraphs_rank.metrics import calibration
from tpugraphs_rank.metrics import evidence


def test_figures_by_operation():
  perfect = evidence.Scored("dot", np.array([1.0, 2, 3]), np.array([3.0, 2, 1]), 2)
  reverse = evidence.Scored("dot", np.array([1.0, 2, 3]), np.array([1.0, 2, 3]), None)
  equal = evidence.Scored("reduce", np.array([2.0, 2]), np.array([1.0, 2]), 0)
  gathered = evidence.gather([perfect, reverse, equal], "valid")
  assert gathered.of("all") == evidence.Figures(
      "all", 3, pytest.approx(0.0), pytest.approx(2 / 3), 0.0)
  assert gathered.of("dot") == evidence.Figures("dot", 2, pytest.approx(0.0), 1.0, 0.0)
  # Nothing can be ranked where all runtimes are equal.
  assert gathered.of("reduce") == evidence.Figures("reduce", 1, None, 0.0, 0.0)
  assert gathered.of("sort") is None
  assert gathered.calibration is None
  assert gathered.reason == ("2 of 3 programs of the valid split have a known default among their "
                             "configurations; a calibration needs 5")


def test_leads_against_the_default():
  program = evidence.Scored("dot", np.array([10.0, 5, 20]), np.array([1.0, 4, 0]), 0)
  against = evidence.against_default(program)
  assert against.leads.tolist() == [3, -1] and against.speedups.tolist() == [2, 0.5]
  fitted = evidence.gather([program] * 6, "valid").calibration
  assert fitted == calibration.fit([against] * 6)


def test_json():
  program = evidence.Scored("dot", np.array([10.0, 5, 20]), np.array([1.0, 4, 0]), 0)
  for gathered in (evidence.gather([program] * 6, "valid"), evidence.gather([program], "valid"),
                   evidence.gather([], "valid")):
    assert evidence.Evidence.from_json(json.loads(json.dumps(gathered.to_json()))) == gathered
  for damaged in ({}, {"split": "valid", "reason": "", "calibration": 3, "figures": []},
                  {"split": "valid", "reason": "", "calibration": None, "figures": [{}]}):
    with pytest.raises(errors.DataError):
      evidence.Evidence.from_json(damaged)
