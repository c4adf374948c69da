"""Output folders that keep their settings, and processes that must be prepared."""

import pathlib

import pytest

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.collect.common import jax_process
from tpugraphs_rank.collect.common import plans
from tpugraphs_rank.collect.common import protocol
from tpugraphs_rank.collect.tile import collect
from tpugraphs_rank.collect.tile import geometry

FIXED = ("seed", "configurations", "protocol")
MATMUL = geometry.Kernel("matmul", (256, 256, 256), "f32")
SOFTMAX = geometry.Kernel("softmax", (384, 768), "f32")


def _store(folder: pathlib.Path, kernel: geometry.Kernel, count: int = 24, seed: int = 0,
           settings: protocol.Protocol = protocol.Protocol()) -> None:
  plans.store(folder, collect.make_plan([kernel], count, seed, settings), FIXED, "kernels")


def test_a_folder_keeps_its_settings_and_its_kernels(tmp_path: pathlib.Path) -> None:
  _store(tmp_path, MATMUL)
  _store(tmp_path, SOFTMAX)
  stems = [entry["stem"] for entry in files.read_json(tmp_path / "plan.json")["kernels"]]
  assert stems == [SOFTMAX.stem, MATMUL.stem]
  for key, changed in (("seed", {"seed": 1}), ("configurations", {"count": 30}),
                       ("protocol", {"settings": protocol.Protocol(min_rounds=1)})):
    with pytest.raises(errors.RunDirectoryError, match=f"(?s){key}: stored.*another --output"):
      _store(tmp_path, MATMUL, **changed)


def test_measuring_needs_a_prepared_process(monkeypatch: pytest.MonkeyPatch) -> None:
  for name, value in protocol.ENVIRONMENT.items():
    monkeypatch.setenv(name, value)
  monkeypatch.setenv("NPROC", "7")
  with pytest.raises(errors.ConfigError, match="^NPROC must have"):
    jax_process.import_jax()
  with pytest.raises(errors.ConfigError, match="^XLA_FLAGS must have"):
    jax_process.import_jax({"XLA_FLAGS": "--other"})


def test_excluded_programs(tmp_path: pathlib.Path) -> None:
  kernels, path = [MATMUL, SOFTMAX], tmp_path / "names"
  assert plans.without(kernels, None, None) == kernels
  assert plans.without(kernels, None, 1) == [MATMUL]
  path.write_text(f"{MATMUL.stem}\nunknown\n")
  assert plans.without(kernels, str(path), 1) == [SOFTMAX]
  path.write_bytes(b"\xff\xfe")
  with pytest.raises(errors.DataError, match="names: not UTF-8; expected a text file with names"):
    plans.without(kernels, str(path), None)
  with pytest.raises(errors.MissingDataError, match="missing"):
    plans.without(kernels, str(tmp_path / "missing"), None)
