"""Settings of all tests."""

import gc
import os
import pathlib
import sys
import tempfile
from typing import NamedTuple

import hypothesis
import pytest

# Silence TensorFlow before a test imports it: its notes on CPU features hide failures.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# The workers of the tests share the cores, and their programs are small.
for _name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
  os.environ.setdefault(_name, "1")

# The tests of one run share a cache; results of other runs must not be reused.
_CACHE = None
if "PYTEST_XDIST_WORKER" not in os.environ:  # Workers inherit the variable.
  _CACHE = tempfile.TemporaryDirectory(prefix="tpugraphs_rank-")
  os.environ["TPUGRAPHS_RANK_CACHE"] = _CACHE.name
  os.environ["TPUGRAPHS_RANK_CONFIG"] = os.path.join(_CACHE.name, "config")

# The same examples on every run make failures reproducible. There is no deadline, because machines
# are shared and the first call of a function may compile it.
hypothesis.settings.register_profile("project", derandomize=True, deadline=None)
hypothesis.settings.register_profile(
    "quick", hypothesis.settings.get_profile("project"), max_examples=40)
hypothesis.settings.load_profile("project")


def pytest_configure(config: pytest.Config) -> None:
  """Tries fewer examples where slow tests are left out."""
  if "not slow" in (config.getoption("markexpr") or ""):
    hypothesis.settings.load_profile("quick")


# Files whose tests take a minute or more. They run first, so that no worker ends with one of them
# while the others have nothing left to do.
_LONG_FILES = (
    "tests/notebooks/test_notebooks.py", "tests/synthesis/layerdag/test_model.py",
    "tests/docs/test_extending.py", "tests/docs/test_commands.py", "tests/house/test_wheel.py",
    "tests/synthesis/layerdag/test_training.py", "tests/training/test_trainer.py",
    "tests/training/test_streaming.py", "tests/cli/test_evaluate.py", "tests/e2e/test_demo.py",
    "tests/synthesis/layerdag/test_fitting.py", "tests/experiments/test_benchmark.py",
    "tests/cli/test_synthesize.py", "tests/models/test_interface.py",
    "tests/training/test_kinds.py", "tests/training/test_packed_training.py",
    "tests/experiments/test_augmentation_study.py",
    "tests/cli/test_layerdag.py", "tests/synthesis/augment/test_strategies.py",
    "tests/cli/test_report.py")


def pytest_unconfigure() -> None:
  """Deletes the cache."""
  if _CACHE is not None:
    _CACHE.cleanup()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
  """Puts the tests of the long files first."""
  places = {name: place for place, name in enumerate(_LONG_FILES)}
  items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(places)))


def pytest_collection_finish() -> None:
  """Saves time that all tests would lose."""
  # Garbage collection need not visit modules and test items each time.
  gc.collect()
  gc.freeze()
  # TensorFlow creates many objects while it traces a function, and keeps them.
  gc.set_threshold(10_000, 20, 50)
  # Keras wraps each call of a layer, to shorten tracebacks. Here they should be long.
  tensorflow = sys.modules.get("tensorflow")
  if tensorflow is not None:
    tensorflow.debugging.disable_traceback_filtering()


class TinyRun(NamedTuple):
  """A run of `tests.training.small_runs`, trained for one epoch.

  Attributes:
    descriptor: its collection.
    path: its run directory. Tests that write into it work on a copy.
  """

  descriptor: pathlib.Path
  path: pathlib.Path


def _tiny_run(folder: pathlib.Path, kind: str) -> TinyRun:
  from tests.training import small_runs
  from tpugraphs_rank.training import trainer
  descriptor = small_runs.collection(folder / "data", kind)
  trainer.Trainer(small_runs.settings(descriptor, training_epochs=1)).train(folder / "run")
  return TinyRun(descriptor, folder / "run")


@pytest.fixture(scope="session")
def tiny_tile_run(tmp_path_factory) -> TinyRun:
  """A tiny run on tiles, trained once for all tests."""
  return _tiny_run(tmp_path_factory.mktemp("tiny_tile"), "tile")


@pytest.fixture(scope="session")
def tiny_layout_run(tmp_path_factory) -> TinyRun:
  """A tiny run on layouts, trained once for all tests."""
  return _tiny_run(tmp_path_factory.mktemp("tiny_layout"), "layout")
