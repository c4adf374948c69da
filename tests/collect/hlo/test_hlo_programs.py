"""Any HLO program is compiled under requests and measured. Needs the collector's JAX."""

import pathlib

import numpy as np
import pytest

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.candidates import programs as programs_lib
from tpugraphs_rank.collect.common import protocol
from tpugraphs_rank.collect.hlo import collect
from tpugraphs_rank.collect.hlo import folder
from tpugraphs_rank.collect.hlo import prepare
from tpugraphs_rank.collect.hlo import requests
from tpugraphs_rank.collect.layout import catalogue
from tpugraphs_rank.collect.layout import configurations
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import reading
from tpugraphs_rank.hlo import tuning_pb2
from tpugraphs_rank.tuning import loading

jax = pytest.importorskip(
    "jax", reason="needs JAX: run in an environment with tpugraphs_rank/collect/requirements.txt")

from tpugraphs_rank.collect.hlo import applying  # noqa: E402 (needs JAX)
from tpugraphs_rank.collect.hlo import programs  # noqa: E402 (needs JAX)
from tpugraphs_rank.collect.layout import builders  # noqa: E402
from tpugraphs_rank.collect.layout import sites as sites_lib  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def modules_of_this_folder(monkeypatch: pytest.MonkeyPatch) -> None:
  """The passes are separate processes."""
  monkeypatch.setenv("PYTHONPATH", str(ROOT))


def _digest(text: str) -> str:
  return protocol.digest(protocol.normalised_hlo(text))


def test_requests_in_hlo_compile_to_the_same_program_as_requests_in_jax() -> None:
  function, arguments = builders.build(
      catalogue.parse_stem("autoencoder.6x8x3.forward"), np.random.default_rng(0))
  traced = sites_lib.Traced(function, arguments)
  content = sites_lib.module_bytes(traced.lower({}))
  listed, numbers = sites_lib.configurable(traced, content)
  module = requests.for_one_device(hlo_pb2.HloModuleProto.FromString(content))
  compiler = programs.Compiler()
  rng = np.random.default_rng(1)
  for configuration in (configurations.default(listed), configurations.random(listed, rng)):
    in_jax = traced.lower(dict(zip(numbers, configuration))).compile()
    in_hlo = compiler.compile(requests.with_requests(
        module, [site.node for site in listed], configuration))
    copies = [text.count(" copy(") for text in (
        in_jax.as_text(), programs.optimised_text(in_hlo))]
    assert copies[0] == copies[1]
    expected = [np.asarray(result) for result in in_jax(*arguments)]
    results = programs.caller(compiler.load(compiler.store(in_hlo)), [
        jax.device_put(argument) for argument in arguments])()
    for ours, theirs in zip(results, expected, strict=True):
      np.testing.assert_allclose(np.asarray(ours), theirs, rtol=1e-4, atol=1e-5)


def _measured(tmp_path: pathlib.Path, path: pathlib.Path, count: int = 4):
  program, text = prepare.read(path)
  output = tmp_path / f"{path.name}.measured"
  candidates = prepare.random_configurations(program, count, 0)
  prepare.prepare(output, program, text, candidates, prepare.Settings(budget_ms=1))
  collect.collect(output)
  return output, files.read_json(output / "report.json")


def test_loops_tables_donation_and_text(tmp_path: pathlib.Path) -> None:
  shape = jax.ShapeDtypeStruct

  def program(table, ids, weights):
    def body(carry, _):
      return (carry @ weights).reshape(4, 2, 16).transpose(1, 0, 2).reshape(8, 16), None
    last, _ = jax.lax.scan(body, table[ids], None, length=3)
    return last, table.at[ids].add(last)

  lowered = jax.jit(program, donate_argnums=0).lower(
      shape((50, 16), np.float32), shape((8,), np.int32), shape((16, 16), np.float32))
  computation = lowered.compiler_ir("hlo")
  binary, text = tmp_path / "f.pb", tmp_path / "f.txt"
  binary.write_bytes(computation.as_serialized_hlo_module_proto())
  text.write_text(computation.as_hlo_text())
  for path in (binary, text):
    output, report = _measured(tmp_path, path)
    assert report["measured"] + sum(report["dropped"].values()) == 4
    assert not {"not_compiled", "crashed", "mismatch"} & report["dropped"].keys()
    assert report["ranking"][0]["runtime_ns"] == report["best_ns"] > 0
    first, second = (reading.read_raw(output / f"pass{number}.pb").modules[0]
                     for number in (1, 2))
    assert [run.is_default for run in first.runs][0] and len(first.runs) == report["measured"]
    assert first.module == second.module == programs_lib.read(path)[0].data.module
    with pytest.raises(errors.RunDirectoryError):
      prepare.prepare(output, *prepare.read(path), prepare.random_configurations(
          prepare.read(path)[0], 3, 0), prepare.Settings())


def test_requests_are_applied_to_the_function_that_the_program_came_from(
    tmp_path: pathlib.Path) -> None:
  def function(x, w):
    return jax.numpy.tanh(x @ w).reshape(4, 4, 8).transpose(1, 0, 2) @ w.T[:8]

  arguments = [np.linspace(-1, 1, 16 * 32, dtype=np.float32).reshape(16, 32),
               np.linspace(0, 1, 32 * 8, dtype=np.float32).reshape(32, 8)]
  module = hlo_pb2.HloModuleProto.FromString(
      jax.jit(function).lower(*arguments).compiler_ir("hlo").as_serialized_hlo_module_proto())
  sites = [site for site in requests.open_sites(module) if site.opcode == "dot"]
  chosen = tuple(((tuple(range(len(site.shapes[0]))), (), ())) for site in sites)
  folder.store_program(tmp_path, tuning_pb2.ModuleTuningData(
      module=module, config_index_to_node=[site.node for site in sites]))
  files.write_json(tmp_path / "tuned.json", {
      "nodes": [site.node for site in sites], "is_faster": True, "finished": True,
      "best": {"layouts": configurations.to_text(chosen)}})
  tuned = applying.applied(tmp_path)(function)
  np.testing.assert_allclose(tuned(*arguments), function(*arguments), rtol=1e-5, atol=1e-5)
  assert jax.jit(tuned).lower(*arguments).as_text().count("@LayoutConstraint") == len(sites) == 2
  with pytest.raises(errors.CompatibilityError, match="no equation of the function"):
    applying.applied(tmp_path)(lambda x, w: function(jax.numpy.sin(x), w))(*arguments)


@pytest.mark.parametrize("width", [32, 64])
def test_wide_types_keep_their_width(tmp_path: pathlib.Path, width: int) -> None:
  shape = jax.ShapeDtypeStruct
  with jax.enable_x64(True):
    lowered = jax.jit(lambda ids, table, w: (table[ids] @ w).reshape(2, 4, 4)).lower(
        shape((8,), f"int{width}"), shape((20, 16), f"float{width}"),
        shape((16, 4), f"float{width}"))
  path = tmp_path / "wide.pb"
  path.write_bytes(lowered.compiler_ir("hlo").as_serialized_hlo_module_proto())
  _, report = _measured(tmp_path, path, 2)
  assert report["measured"]
  (tmp_path / loading.PROGRAM).write_text(lowered.as_text())
  tuned = loading.load(tmp_path)
  ids, table, w = [3] * 8, np.ones((20, 16)), np.ones((16, 4))
  [result] = tuned(ids, table, w)  # Plain numbers are converted as JAX does.
  assert result.shape == (2, 4, 4) and np.asarray(result).dtype == f"float{width}"
  assert (np.asarray(result) == 16).all()
  with pytest.raises(TypeError, match=r"argument 1 has the shape \(16, 4\)"):
    tuned(ids, w, w)
  with pytest.raises(TypeError, match="has 3 parameters; 1 were given"):
    tuned(ids)


def test_a_program_without_finite_results_is_refused(tmp_path: pathlib.Path) -> None:
  lowered = jax.jit(lambda x: jax.numpy.log(-(x @ x.T) ** 2)).lower(
      jax.ShapeDtypeStruct((8, 8), np.float32))
  path = tmp_path / "nan.pb"
  path.write_bytes(lowered.compiler_ir("hlo").as_serialized_hlo_module_proto())
  with pytest.raises(errors.DataError, match="infinite or NaN"):
    _measured(tmp_path, path, 2)


def test_what_the_collector_measured_fits_the_raw_format(tmp_path: pathlib.Path) -> None:
  lowered = jax.jit(lambda x, y: (x @ y).reshape(4, 4, 8)).lower(
      *[jax.ShapeDtypeStruct(sides, np.float32) for sides in ((16, 32), (32, 8))])
  path = tmp_path / "product.pb"
  path.write_bytes(lowered.compiler_ir("hlo").as_serialized_hlo_module_proto())
  output, _ = _measured(tmp_path, path, 3)
  data = tuning_pb2.ModuleTuningData.FromString((output / "pass1.pb").read_bytes())
  # The result can be measured again: it keeps the fields that the package does not declare.
  requests.for_one_device(data.module)
