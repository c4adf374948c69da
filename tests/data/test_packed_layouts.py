"""Encoded layouts decode to the same numbers with every encoding."""

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
import numpy as np
import pytest

from tests import synthetic
from tpugraphs_rank import errors
from tpugraphs_rank.data import packed_format
from tpugraphs_rank.data import packed_layouts

# Any layouts at all.
ANY = hnp.arrays(np.int8, st.tuples(st.integers(0, 12), st.integers(0, 4), st.just(18)),
                 elements=st.integers(-1, 5))
ROWS = st.lists(st.integers(0, 11), max_size=9)


def _write(path, layouts, cuts=()):
  with open(path, "wb") as file:
    writer = packed_format.Writer(file)
    packed_layouts.write(writer, layouts.shape[1], lambda: np.split(layouts, sorted(cuts)))
    writer.finish({})
  return packed_format.Reader(path)


def _random(rng, configs, nodes, distinct_count, width):
  """Layouts whose rows of `width` numbers are drawn from `distinct_count` different ones."""
  values = rng.choice(7 ** min(width, 6), distinct_count, replace=False)
  known = values[:, None] // 7 ** np.arange(min(width, 6)) % 7 - 1
  known = np.concatenate([known, np.full((distinct_count, width - known.shape[1]), -1)], axis=1)
  # Each distinct row occurs, whatever is drawn.
  places = configs * nodes * 18 // width
  picks = np.concatenate([
      np.arange(distinct_count), rng.integers(distinct_count, size=places - distinct_count)])
  return known[picks].astype(np.int8).reshape(configs, nodes, 18)


@settings(max_examples=30)
@given(layouts=ANY, dtype=st.sampled_from([np.int8, np.float32, np.float64, np.int64]),
       cuts=st.lists(st.integers(0, 12), max_size=3), picked=ROWS)
def test_round_trip(tmp_path_factory, layouts, dtype, cuts, picked):
  reader = _write(tmp_path_factory.getbasetemp() / "l.pack", layouts.astype(dtype), cuts)
  read = packed_layouts.PackedLayouts(reader)
  for rows in (np.arange(len(layouts)), [row for row in picked if row < len(layouts)]):
    actual = read(rows)
    assert actual.dtype == np.int8
    np.testing.assert_array_equal(actual, layouts[np.array(rows, np.int64)])


@pytest.mark.parametrize("distinct_count, width, coded", [
    (256, 18, (18, np.uint8)), (257, 18, (18, np.uint16)), (65_536, 18, (18, np.uint16)),
    # Too many layouts of three tensors, and few of one, then many, then too many.
    (256, 6, (6, np.uint8)), (257, 6, (6, np.uint16)), (65_537, 6, (1, np.uint8))])
def test_the_smallest_sufficient_encoding_is_used(tmp_path, distinct_count, width, coded):
  layouts = _random(np.random.default_rng(0), 3000, 40, distinct_count, width)
  reader = _write(tmp_path / "l.pack", layouts, [100, 2000])
  assert (reader.arrays["dictionary"].shape[1], reader.arrays["codes"].dtype) == coded
  assert reader.arrays["codes"].shape == (3000, 40 * 18 // coded[0])
  distinct = np.unique(layouts.reshape(-1, coded[0]), axis=0)
  assert reader.arrays["dictionary"].shape[0] == len(distinct)
  rows = np.random.default_rng(1).integers(3000, size=64)
  np.testing.assert_array_equal(packed_layouts.PackedLayouts(reader)(rows), layouts[rows])


@given(layouts=ANY, repeat=ROWS)
def test_keys_and_digests_are_the_graphs_own(tmp_path_factory, layouts, repeat):
  layouts = np.concatenate([layouts, layouts[[row for row in repeat if row < len(layouts)]]])
  count, nodes, _ = layouts.shape
  graph = synthetic.layout_graph(
      0, num_configs=count, num_config_nodes=nodes, node_config_feat=layouts.astype(np.float32))
  reader = _write(tmp_path_factory.getbasetemp() / "k.pack", layouts, [3])
  np.testing.assert_array_equal(reader.read("keys"), graph.config_keys())
  np.testing.assert_array_equal(reader.read("digests"), graph.config_digests())


def test_the_file_does_not_depend_on_the_blocks(tmp_path):
  layouts = _random(np.random.default_rng(0), 50, 3, 20, 18)
  one, other = (_write(tmp_path / name, layouts, cuts)
                for name, cuts in (("a.pack", ()), ("b.pack", range(50))))
  for name in ("code_checks", "digests", "keys"):
    np.testing.assert_array_equal(one.read(name), other.read(name))


def test_a_damaged_row_is_detected_on_access(tmp_path):
  layouts = _random(np.random.default_rng(0), 30, 4, 20, 18)
  entry = _write(tmp_path / "l.pack", layouts).arrays["codes"]
  content = bytearray((tmp_path / "l.pack").read_bytes())
  # A code of the same dictionary: wrong but well-formed.
  place = entry.offset + 7 * 4 + 2
  content[place] = (content[place] + 1) % 20
  (tmp_path / "l.pack").write_bytes(content)
  read = packed_layouts.PackedLayouts(packed_format.Reader(tmp_path / "l.pack"))
  others = np.delete(np.arange(30), 7)
  np.testing.assert_array_equal(read(others), layouts[others])
  with pytest.raises(errors.DataError, match=(
      "l.pack is damaged: the checksum of the codes of configuration 7 is wrong; remove it")):
    read(np.array([1, 7]))


def test_a_damaged_dictionary_is_detected(tmp_path):
  layouts = _random(np.random.default_rng(0), 30, 4, 20, 18)
  entry = _write(tmp_path / "l.pack", layouts).arrays["dictionary"]
  content = bytearray((tmp_path / "l.pack").read_bytes())
  content[entry.offset + 17] ^= 1
  (tmp_path / "l.pack").write_bytes(content)
  read = packed_layouts.PackedLayouts(packed_format.Reader(tmp_path / "l.pack"))
  with pytest.raises(errors.DataError, match="the checksum of its array 'dictionary' is wrong"):
    read(np.array([0]))


def test_a_configuration_that_does_not_exist(tmp_path):
  read = packed_layouts.PackedLayouts(_write(tmp_path / "l.pack", np.zeros([3, 2, 18], np.int8)))
  with pytest.raises(IndexError):
    read(np.array([3]))
