"""The study of the prior's weight: its folds and its figures. Nothing is trained here."""

import math

import numpy as np
import pytest

from experiments import prior_weights
from tpugraphs_rank.data import registry


def test_every_group_is_held_out_once_and_whole():
  collection = registry.get_collection("tile:xla_cpu")
  folds = prior_weights.divide(collection)
  group = lambda name: collection.group(name.rpartition("/")[2].removesuffix(".npz"))
  held = [name for fold in folds for name in fold.files["test"]]
  assert len(folds) == 8 and len(held) == len(set(held))
  assert len(held) == collection.splits["train"] + collection.splits["valid"]
  for fold in folds:
    out = set(map(group, fold.files["test"]))
    rest = {split: set(map(group, fold.files[split])) for split in ("train", "valid")}
    assert out and rest["train"] and rest["valid"] and not out & (rest["train"] | rest["valid"])
    assert fold.name == " and ".join(sorted(out))


def test_figures_are_means_over_groups():
  collection = registry.get_collection("tile:xla_cpu")
  names = [path.stem for path in sorted(collection.location().rglob("*.npz"))]
  of = lambda group: [name for name in names if collection.group(name) == group]
  good, bad = [4.0, 3.0, 2.0, 1.0], [1.0, 2.0, 3.0, 4.0]
  kernel = lambda networks, prior: {
      "runtimes": [10.0, 20.0, 30.0, 40.0], "networks": networks, "prior": prior}
  scored = {of("matmul")[0]: kernel(good, bad), of("matmul")[1]: kernel(bad, bad),
            of("scan")[0]: kernel(good, good)}
  results = prior_weights.summary(collection, scored)
  assert (results["groups"], results["kernels"]) == (2, 3)
  first, last = results["weights"]["0.0"], results["weights"]["1.0"]
  assert first["kendall_tau"]["mean"] == pytest.approx(np.mean([0.0, 1.0]))
  assert first["kendall_tau"]["error"] == pytest.approx(0.5)
  assert last["kendall_tau"]["mean"] == pytest.approx(np.mean([-1.0, 1.0]))
  assert first["log_top1_slowdown"]["mean"] == pytest.approx(math.log(4) / 4, abs=1e-4)
  assert last["log_top1_slowdown"]["mean"] == pytest.approx(math.log(4) / 2, abs=1e-4)
  # A geometric mean: of 4 and 1 times the fastest.
  assert "| 1.0 | 0.000 ± 1.000 | 100.0 % |" in prior_weights.table(results)
