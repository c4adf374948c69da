"""Synthetic programs in training: selection, sampling of lists from both sides, and weights."""

import collections
import dataclasses
import json

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

pytest.importorskip("tensorflow")

from tests import synthetic
from tests.training import small_runs
from tpugraphs_rank import errors
from tpugraphs_rank.data import batches
from tpugraphs_rank.data import mixing
from tpugraphs_rank.data import normalize
from tpugraphs_rank.data import npz
from tpugraphs_rank.data import registry
from tpugraphs_rank.data import splits


@given(count=st.integers(1, 7), start=st.integers(0, 40), size=st.integers(0, 30),
       seed=st.integers(0, 99))
def test_any_part_of_the_sequence_of_permutations(count, start, size, seed):
  whole = mixing.repeated_permutations(count, 0, 80, [seed, 1])
  part = mixing.repeated_permutations(count, start, start + size, [seed, 1])
  np.testing.assert_array_equal(part, whole[start:start + size])
  for turn in range(80 // count):
    assert sorted(whole[turn * count:(turn + 1) * count]) == list(range(count))


def test_the_two_sides_have_independent_permutations():
  one, other = (mixing.repeated_permutations(50, 0, 50, [3, side]) for side in (1, 2))
  again = mixing.repeated_permutations(50, 50, 100, [3, 1])
  assert list(one) != list(other) and list(one) != list(again)


def _write(folder, graphs, **changes):
  """A collection of one split of these graphs; returns its descriptor's path."""
  split = changes.pop("split", "train")
  for graph in graphs:
    npz.save_graph(folder / split / f"{graph.name}.npz", graph)
  path = folder / "collection.json"
  path.write_text(json.dumps({
      "name": "tile:made", "kind": graphs[0].kind, "target": "chip",
      "splits": {split: len(graphs)}, **changes}))
  return path


def _synthetic_graphs(count=5, **changes):
  return [synthetic.tile_graph(100 + i, num_nodes=13 + i, num_configs=7 + i, name=f"made{i}",
                               **changes) for i in range(count)]


@pytest.fixture(name="real")
def _real(tmp_path):
  return small_runs.collection(tmp_path / "real")


def _load(real, other, **changes):
  config = small_runs.settings(real, augment_synthetic=str(other), **changes)
  collection = registry.get_collection(str(real))
  valid = splits.load_programs(config.data, "valid")
  return mixing.load_synthetic(config, collection, valid)


def _names(loaded):
  return [program.graph.name for program in loaded.programs]


# ---- steps ---------------------------------------------------------------------------------------


def _prepared(graphs):
  normalizer = normalize.Normalizer.fit(graphs)
  return [batches.prepare(splits.ProgramView(graph), normalizer) for graph in graphs]


def _drawn(real_count, synthetic_count, epochs=3, **changes):
  """For each step of several epochs the names of the graphs in it, and its weights."""
  graphs = [synthetic.tile_graph(i, num_nodes=3 + i) for i in range(real_count)]
  prepared = _prepared(graphs + _synthetic_graphs(synthetic_count))
  real, other = prepared[:real_count], prepared[real_count:]
  by_nodes = {member.graph.num_nodes: member.name for member in (*real, *other)}
  config = small_runs.settings("tile:none", **(
      {"augment_synthetic": "made"} if synthetic_count else {}), **changes)
  actual = [[], []]
  for epoch in range(1, epochs + 1):
    steps = list(mixing.epoch_batches(real, other, config, epoch))
    for batch in steps:
      actual[0].append([by_nodes[count] for count in batch["num_nodes"]])
      actual[1].append(batch.get(batches.WEIGHT))
  return actual


@pytest.mark.parametrize("share, size, expected", [
    (0.5, 8, 4), (0.5, 3, 2), (0.01, 4, 1), (0.75, 4, 3), (1.0, 4, 4)])
def test_the_share_of_synthetic_lists(share, size, expected):
  names, weights = _drawn(5, 4, batch_batch_size=size, augment_synthetic_share=share,
                          augment_synthetic_weight=0.25, training_steps_per_epoch=10)
  assert len(names) == 30
  for step, weight in zip(names, weights):
    assert [name.startswith("made") for name in step] == [False] * (size - expected) + (
        [True] * expected)
    assert weight.dtype == np.float32
    assert list(weight) == [1.0] * (size - expected) + [0.25] * expected
  # Over several epochs, too, the numbers of uses of two programs of a side differ by at most 1.
  for side in (True, False):
    counts = collections.Counter(
        name for step in names for name in step if name.startswith("made") == side)
    if counts:
      assert len(counts) == (4 if side else 5)
      assert max(counts.values()) - min(counts.values()) <= 1


def test_steps_depend_on_the_real_programs_only():
  without, no_weights = _drawn(5, 0, batch_batch_size=4, batch_lists_per_graph=3)
  assert set(map(type, no_weights)) == {type(None)}
  for synthetic_count in (2, 9):
    mixed, _ = _drawn(5, synthetic_count, batch_batch_size=4, batch_lists_per_graph=3)
    assert len(mixed) == len(without) == 3 * 4
    assert {len(step) for step in mixed} == {4}


def test_without_synthetic_programs_nothing_changes():
  graphs = _prepared([synthetic.tile_graph(i) for i in range(4)])
  config = small_runs.settings("tile:none")
  for one, other in zip(mixing.epoch_batches(graphs, [], config, 2),
                        batches.training_batches(graphs, config.batch, 0, 2)):
    assert one.keys() == other.keys()
    for key in one:
      np.testing.assert_array_equal(one[key], other[key])


def test_a_fixed_number_of_steps_repeats_the_real_programs():
  names, weights = _drawn(5, 0, epochs=2, training_steps_per_epoch=7, batch_batch_size=3)
  assert len(names) == 14 and weights == [None] * 14
  counts = collections.Counter(name for step in names for name in step)
  assert set(counts.values()) == {8, 9}  # 42 lists of 5 programs.


@pytest.mark.parametrize("share, size", [(0.9, 2), (0.5, 1)])
def test_a_real_share_without_a_real_list_is_refused(share, size):
  config = small_runs.settings("tile:none", augment_synthetic="made", augment_synthetic_share=share,
                         batch_batch_size=size)
  with pytest.raises(errors.ConfigError, match="leaves no real list; raise --batch_size"):
    mixing.check(config)
  mixing.check(small_runs.settings("tile:none", batch_batch_size=1))


# ---- which programs ------------------------------------------------------------------------------


def test_the_training_programs_of_a_collection_or_all_of_an_undivided_one(real, tmp_path):
  for split in ("train", "all"):
    if split == "train":
      path = _write(tmp_path / split, _synthetic_graphs())
    else:
      (tmp_path / split).mkdir()
      for graph in _synthetic_graphs():
        npz.save_graph(tmp_path / split / f"{graph.name}.npz", graph)
      path = tmp_path / split / "collection.json"
      path.write_text(json.dumps({"name": "tile:made", "kind": "tile", "target": "chip",
                                  "splits": {"all": 5}}))
    assert _names(_load(real, path)) == [f"made{i}" for i in range(5)]
    some = [_names(_load(real, path, augment_synthetic_graphs=2, training_seed=seed))
            for seed in range(6)]
    assert {len(names) for names in some} == {2} and len(set(map(tuple, some))) > 1
    assert some[0] == _names(_load(real, path, augment_synthetic_graphs=2))


def test_a_budget_of_real_programs_does_not_limit_the_synthetic_ones(real, tmp_path):
  path = _write(tmp_path / "made", _synthetic_graphs())
  assert len(_load(real, path, data_max_graphs=1).programs) == 5


def _graph_of(folder, split, index, name, shapes_of=None):
  """A copy of a graph of the real collection, in other shapes if requested."""
  path = sorted((folder / split).glob("*.npz"))[index]
  graph = npz.load_graph(path)
  arrays = {key: np.array(value) for key, value in graph.arrays().items()}
  if shapes_of is not None:
    arrays["node_feat"][:, 21:27] += shapes_of
  return npz.graphs.graph_from_arrays(name, arrays)


def test_programs_of_validation_or_test_are_left_out(real, tmp_path):
  folder = real.parent
  copies = [
      _graph_of(folder, "valid", 0, "valid_content"),
      _graph_of(folder, "test", 0, "test_content"),
      _graph_of(folder, "valid", 1, "valid_shape", 3.0),
      _graph_of(folder, "test", 1, "test_shape", 3.0),
      _graph_of(folder, "train", 0, "train_content"),
      *_synthetic_graphs(1)]
  path = _write(tmp_path / "made", copies)
  loaded = _load(real, path)
  assert _names(loaded) == ["made0", "train_content"]
  assert sorted(loaded.counts.held_back) == [
      "test_content", "test_shape", "valid_content", "valid_shape"]
  assert loaded.counts.programs == 2
  assert ("left out 4 programs that are also in validation or test: test_content, test_shape"
          in str(loaded.counts))
  content = _load(real, path, augment_synthetic_held_back="content")
  assert sorted(content.counts.held_back) == ["test_content", "valid_content"]
  # Training holds the structures of validation as well: then only equal contents are left out.
  for index in (0, 1):
    twin = _graph_of(folder, "valid", index, f"twin{index}", 5.0)
    npz.save_graph(folder / "train" / f"{twin.name}.npz", twin)
  described = json.loads(real.read_text())
  described["splits"]["train"] += 2
  real.write_text(json.dumps(described))
  for rule, expected in (
      ("unseen", ["test_content", "test_shape", "valid_content"]),
      ("structure", ["test_content", "test_shape", "valid_content", "valid_shape"])):
    # Also with a budget whose sample contains no twin.
    actual = _load(real, path, augment_synthetic_held_back=rule, data_max_graphs=1)
    assert sorted(actual.counts.held_back) == expected


def test_a_missing_test_split_is_logged_and_skipped(real, tmp_path, caplog):
  for file in (real.parent / "test").glob("*.npz"):
    file.unlink()
  assert len(_load(real, _write(tmp_path / "made", _synthetic_graphs())).programs) == 5
  assert "synthetic programs are not compared with tile:tiny test: no data of" in caplog.text


def test_known_programs_with_new_configurations(real, tmp_path):
  path = _write(tmp_path / "made", [
      _graph_of(real.parent, "train", 0, "content"),
      _graph_of(real.parent, "train", 1, "shape", 2.0)])
  loaded = _load(real, path, data_split_by="configuration")
  assert _names(loaded) == ["shape"] and loaded.counts.held_back == ["content"]


def test_nothing_left(real, tmp_path):
  path = _write(tmp_path / "made", [_graph_of(real.parent, "valid", 0, "copy")])
  with pytest.raises(errors.DataError, match="no program is left, because 1 are also in"):
    _load(real, path)


@pytest.mark.parametrize("changes, message", [
    ({"target": "other"}, "has target 'other', but tile:tiny has 'chip'; measure the synthetic"),
    ({"hlo_stage": "before_optimization"},
     "has hlo_stage 'before_optimization', .*featurize both")])
def test_incompatible_collections(real, tmp_path, changes, message):
  path = _write(tmp_path / "made", _synthetic_graphs(), **changes)
  with pytest.raises(errors.CompatibilityError, match=message):
    _load(real, path)


def test_another_target_on_request(real, tmp_path):
  path = _write(tmp_path / "made", _synthetic_graphs(), target="other")
  assert len(_load(real, path, augment_synthetic_any_target=True).programs) == 5
  path = _write(tmp_path / "late", _synthetic_graphs(), target="other",
                hlo_stage="before_optimization")
  with pytest.raises(errors.CompatibilityError, match="has hlo_stage"):
    _load(real, path, augment_synthetic_any_target=True)


def test_another_kind_padding_or_split(real, tmp_path):
  path = _write(tmp_path / "layouts", [synthetic.layout_graph(3)], name="layout:made")
  with pytest.raises(errors.CompatibilityError, match="has kind 'layout', but .* has 'tile'"):
    _load(real, path)
  path = _write(tmp_path / "padded", _synthetic_graphs(feature_padding=np.int64(-1)))
  with pytest.raises(errors.CompatibilityError, match="featurize the synthetic .*--padding=0"):
    _load(real, path)
  path = _write(tmp_path / "tested", _synthetic_graphs(), split="test")
  with pytest.raises(errors.ConfigError, match="has the splits test; expected train or all"):
    _load(real, path)


@pytest.mark.parametrize("text, error, message", [
    (None, errors.MissingDataError, "no.json"),
    ("{", errors.DataError, "no.json"),
    ('{"name": "tile:x", "kind": "tile", "target": "chip", "splits": {"train": 1}, "pth": 1}',
     errors.DataError, r"no.json: unknown key 'pth' \(did you mean 'path'\?\)")])
def test_a_bad_descriptor(real, tmp_path, text, error, message):
  if text is not None:
    (tmp_path / "no.json").write_text(text)
  with pytest.raises(error, match=message):
    _load(real, tmp_path / "no.json")


def test_shuffled_runtimes(real, tmp_path):
  path = _write(tmp_path / "made", _synthetic_graphs())
  plain, shuffled = (_load(real, path, augment_synthetic_shuffled=value).programs
                     for value in (False, True))
  changed = 0
  for one, other in zip(plain, shuffled):
    assert one.graph.name == other.graph.name
    np.testing.assert_array_equal(np.sort(one.runtimes), np.sort(other.runtimes))
    np.testing.assert_array_equal(one.graph.config_runtime, other.graph.config_runtime)
    changed += not np.array_equal(one.runtimes, other.runtimes)
  assert changed == len(plain)
  again = _load(real, path, augment_synthetic_shuffled=True).programs
  np.testing.assert_array_equal(again[0].runtimes, shuffled[0].runtimes)


def test_features_are_scaled_by_the_training_programs():
  real, other = ([splits.ProgramView(synthetic.tile_graph(i))] for i in (1, 2))
  config = small_runs.settings("tile:none", augment_synthetic="made")
  assert mixing.training_programs(config, real, other) == real + other
  assert mixing.training_programs(config, real, []) == real
  alone = dataclasses.replace(
      config, augment=dataclasses.replace(config.augment, synthetic_share=1.0))
  assert mixing.training_programs(alone, real, other) == other
