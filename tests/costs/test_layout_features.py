"""Features of configurations from simulated effects: scale, codes, independence of the order."""

import numpy as np

from tests.costs import layout_programs
from tpugraphs_rank.costs import layout_assignment
from tpugraphs_rank.costs import layout_features
from tpugraphs_rank.costs import targets


def _program():
  program = layout_programs.Program()
  a = program.add("parameter", [64, 32])
  twice = program.add("add", [64, 32], [a])
  dot = program.add("dot", [64, 16], [twice, program.add("parameter", [32, 16])])
  return program.graph([{}, {(dot, 1): [0, 1]}, {(dot, 0): [0, 1], (dot, 1): [0, 1]}])


def test_totals_and_codes_are_those_of_the_effects():
  graph = _program()
  effects = layout_assignment.Assignment(graph, targets.CPU).effects(
      graph.layouts(np.arange(3))).astype(np.float64)
  totals, requests = layout_features.LayoutFeatures(graph, targets.CPU)(np.array([2, 0]))
  elements = np.array([64 * 32, 64 * 32, 32 * 16, 64 * 16])
  shares = effects.sum(axis=(1, 2))[[2, 0]] / elements.sum()
  weights = [layout_features.NANOSECONDS.get(name, 0) for name in layout_assignment.EFFECTS]
  expected = np.column_stack([
      10 * shares, 4 * np.sign(shares) * np.sqrt(np.abs(shares)), 30 * shares @ weights])
  np.testing.assert_allclose(totals, expected, rtol=1e-5)
  assert not totals[1].any() and not requests[1].any()  # The default.
  relative = effects[2] / elements.mean()
  np.testing.assert_array_equal(
      requests[0], np.rint(12 * np.sign(relative) * np.sqrt(np.abs(relative))))


def test_programs_that_are_computed_row_by_row(monkeypatch):
  graph = _program()
  whole = layout_features.LayoutFeatures(graph, targets.CPU)(np.arange(3))
  monkeypatch.setattr(layout_features, "_KEPT", 0)
  monkeypatch.setattr(layout_features, "_BLOCK", 50)
  parts = layout_features.LayoutFeatures(graph, targets.CPU)(np.array([1, 0, 2, 1]))
  for actual, expected in zip(parts, whole):
    np.testing.assert_array_equal(actual, expected[[1, 0, 2, 1]])


def test_both_parts_of_a_batch_cost_one_simulation(monkeypatch):
  graph = _program()
  monkeypatch.setattr(layout_features, "_KEPT", 0)
  computed = []
  simulate = layout_assignment.Assignment.effects
  monkeypatch.setattr(layout_assignment.Assignment, "effects", lambda own, layouts: (
      computed.append(len(layouts)) or simulate(own, layouts)))
  features = layout_features.LayoutFeatures(graph, targets.CPU)
  first, again = features(np.array([1, 2])), features(np.array([1, 2]))
  assert computed == [2]
  for one, other in zip(first, again):
    np.testing.assert_array_equal(one, other)
  features(np.array([2, 1]))
  assert computed == [2, 2]
