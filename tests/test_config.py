"""Configurations: round trip, error messages, precedence of sources, hash, differences."""

import collections
import dataclasses
import json
import pathlib
import subprocess
import sys
import typing

from absl import flags
from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from tests import testdata
from tpugraphs_rank import config
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import run_config
from tpugraphs_rank.cli import app

ROOT = pathlib.Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True)
class Section:
  width: int = config.setting(4, "Width.", minimum=1, maximum=64)
  rate: float = config.setting(0.5, "Rate.", above=0.0)
  names: tuple[str, ...] = config.setting(("a",), "Names.", choices=("a", "b", "gamma"))
  sizes: tuple[int, ...] = config.setting((1, 2), "Sizes.", minimum=1)


@dataclasses.dataclass(frozen=True)
class Top:
  first: Section = Section()
  quiet: bool = config.setting(False, "Quiet.", hashed=False)
  limit: int | None = config.setting(None, "Limit.", minimum=1)
  path: str | None = config.setting(None, "Path.", hashed=False)


# ---- drawing configurations ----------------------------------------------------------------------


def _values(hint, metadata):
  """Valid values of a setting, from its type and limits."""
  if typing.get_origin(hint) is tuple:
    return st.lists(_values(typing.get_args(hint)[0], metadata), max_size=3).map(tuple)
  if type(None) in typing.get_args(hint):
    return st.none() | _values(typing.get_args(hint)[0], metadata)
  choices = metadata["choices"]() if callable(metadata["choices"]) else metadata["choices"]
  if choices:
    return st.sampled_from(choices)
  if typing.get_origin(hint) is dict:
    return st.dictionaries(st.text(max_size=4), st.integers(0, 9), max_size=2)
  above = metadata["above"]
  low = above if metadata["minimum"] is None else metadata["minimum"]
  return {
      bool: st.booleans(), str: st.text(max_size=8).filter(lambda text: "\0" not in text),
      int: st.integers(-2**63 if low is None else low,
                       2**63 - 1 if metadata["maximum"] is None else metadata["maximum"]),
      float: st.floats(low, metadata["maximum"], allow_nan=False, allow_infinity=False,
                       exclude_min=above is not None)}[hint]


def _settings(cls, prefix=""):
  """(dotted name, type, metadata) of every setting."""
  hints = config.field_types(cls)
  for field in dataclasses.fields(cls):
    if dataclasses.is_dataclass(hints[field.name]):
      yield from _settings(hints[field.name], f"{prefix}{field.name}.")
    elif field.name != "plugin":  # Its values are modules to import.
      yield prefix + field.name, hints[field.name], field.metadata


@st.composite
def _configurations(draw, cls=run_config.RunConfig):
  changes = {name: draw(_values(hint, metadata)) for name, hint, metadata in _settings(cls)}
  return config.override(cls(), changes)


@st.composite
def _one_change(draw, cls=run_config.RunConfig):
  """A configuration, and the same with another value of one setting; that setting."""
  name, hint, metadata = draw(st.sampled_from(list(_settings(cls))))
  before, after = draw(st.tuples(_values(hint, metadata), _values(hint, metadata)).filter(
      lambda pair: pair[0] != pair[1]))
  base = config.override(cls(), {name: before})
  return base, config.override(base, {name: after}), name, metadata["hashed"]


# ---- round trip, hash, differences ---------------------------------------------------------------


@given(_configurations())
def test_json_round_trip(drawn):
  text = json.dumps(config.to_dict(drawn), allow_nan=False)
  again = config.from_dict(run_config.RunConfig, json.loads(text))
  assert again == drawn
  assert config.stable_hash(again) == config.stable_hash(drawn)
  assert config.differences(drawn, again) == []


@given(_one_change())
def test_hash_and_differences_reflect_hashed_settings_only(change):
  before, after, name, hashed = change
  lines = config.differences(before, after)
  assert (config.stable_hash(before) != config.stable_hash(after)) == hashed
  assert len(lines) == int(hashed)
  if hashed:
    get = lambda c: next(value for leaf, _, value in config.leaves(c) if leaf == name)
    assert lines == [f"{name}: stored {get(before)!r}, requested {get(after)!r}"]


def test_paths_and_verbosity_are_not_hashed():
  unhashed = {name for name, _, metadata in _settings(run_config.RunConfig)
              if not metadata["hashed"]}
  assert {"data.data_root", "training.initial_checkpoint", "training.tensorboard",
          "training.threads"} <= unhashed
  assert not unhashed & {"data.collection", "training.seed", "model.model", "loss.losses"}


def test_the_hash_is_the_same_in_another_process():
  code = ("from tpugraphs_rank import config, run_config\n"
          "print(config.stable_hash(run_config.RunConfig()))")
  actual = {
      subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, text=True,
                     capture_output=True, env={"PYTHONHASHSEED": seed}).stdout.strip()
      for seed in ("1", "2")}
  assert actual == {config.stable_hash(run_config.RunConfig())}


def test_the_hash_does_not_depend_on_the_order_of_fields():
  one = dataclasses.make_dataclass("C", [("a", int, 1), ("b", int, 2)], frozen=True)
  other = dataclasses.make_dataclass("C", [("b", int, 2), ("a", int, 1)], frozen=True)
  assert config.stable_hash(one()) == config.stable_hash(other())
  # Run directories store this hash, so its inputs must not change.
  assert config.stable_hash(one()) == "43258cff783fe703"


# ---- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("values, message", [
    ({"frist": {}}, "unknown setting 'frist' (did you mean 'first'?)"),
    ({"first": {"widht": 3}}, "unknown setting 'first.widht' (did you mean 'width'?)"),
    ({"zzzzz": 1}, "unknown setting 'zzzzz'; known here: first, limit, path, quiet"),
    ({"first": 3}, "first is int; expected an object of settings"),
    ([1], "the configuration is list; expected an object of settings"),
    ({"first": {"width": "4"}}, "first.width = '4' is not a whole number"),
    ({"first": {"width": 4.0}}, "first.width = 4.0 is not a whole number"),
    ({"first": {"width": True}}, "first.width = True is not a whole number"),
    ({"first": {"width": None}}, "first.width = None is not a whole number"),
    ({"first": {"width": 0}}, "first.width = 0; expected at least 1"),
    ({"first": {"width": 65}}, "first.width = 65; expected at most 64"),
    ({"first": {"rate": 0.0}}, "first.rate = 0.0; expected greater than 0.0"),
    ({"first": {"rate": float("nan")}}, "first.rate = nan is not a finite number"),
    ({"first": {"rate": float("inf")}}, "first.rate = inf is not a finite number"),
    ({"first": {"rate": False}}, "first.rate = False is not a finite number"),
    ({"first": {"rate": 10**400}}, "...000 is not a finite number of at most 64 bits"),
    ({"first": {"rate": 10**5000}}, "first.rate = <int that is too long to show> is not a finite"),
    ({"first": {"width": 2**63}}, "first.width = 9223372036854775808 is not a whole number"),
    ({"first": {"x" * 10**6: 1}}, "xx...xx'; known here: "),
    ({"first": {"\x1b[2J": 1}}, r"unknown setting 'first.\x1b[2J'; known here: "),
    ({"first": {"names": "a"}}, "is not a list in which each element is a string"),
    ({"first": {"names": ["a", 1]}}, "is not a list in which each element is a string"),
    ({"first": {"names": ["gama"]}},
     "'gama' (did you mean 'gamma'?); expected one of: a, b, gamma"),
    ({"first": {"sizes": [3, 0]}}, "first.sizes = 0; expected at least 1"),
    ({"first": {"sizes": [3, 1.5]}}, "is not a list in which each element is a whole number"),
    ({"quiet": 1}, "quiet = 1 is not true or false"),
    ({"limit": 0}, "limit = 0; expected at least 1"),
    ({"limit": "many"}, "limit = 'many' is not a whole number or null"),
    ({"path": 3}, "path = 3 is not a string or null"),
])
def test_wrong_values_are_refused(values, message):
  with pytest.raises(errors.ConfigError) as caught:
    config.from_dict(Top, values, source="settings.json")
  assert str(caught.value).startswith("settings.json: ")
  assert message in str(caught.value)


def test_whole_numbers_are_valid_floats():
  rate = config.from_dict(Top, {"first": {"rate": 2}}).first.rate
  assert rate == 2.0 and isinstance(rate, float)


def test_numpy_numbers_are_numbers():
  first = config.from_dict(Top, {"first": {
      "width": np.int64(4), "rate": np.float32(0.5), "sizes": np.array([3, 1])}}).first
  assert (first.width, first.rate, first.sizes) == (4, 0.5, (3, 1))
  assert all(type(number) is int for number in (first.width, *first.sizes))
  with pytest.raises(errors.ConfigError, match="first.width = 4.0 is not a whole number"):
    config.from_dict(Top, {"first": {"width": 4.0}})
  with pytest.raises(errors.ConfigError, match="is not a whole number"):
    config.from_dict(Top, {"first": {"width": np.float64(4)}})


def test_limits_are_inclusive():
  assert config.from_dict(Top, {"first": {"width": 64}}).first.width == 64
  assert config.from_dict(Top, {"first": {"width": 1, "sizes": []}}).first.sizes == ()
  assert config.from_dict(Top, {"limit": None}).limit is None


def test_override_changes_only_the_named_settings_of_a_copy():
  base = config.from_dict(Top, {"first": {"width": 7}, "limit": 2})
  changed = config.override(base, {"first.rate": 0.25})
  assert changed == dataclasses.replace(base, first=dataclasses.replace(base.first, rate=0.25))
  assert base.first.rate == 0.5
  with pytest.raises(errors.ConfigError, match=r"^flags: unknown setting 'first\.wdith'"):
    config.override(base, {"first.wdith": 3})


def test_configurations_cannot_be_changed():
  with pytest.raises(dataclasses.FrozenInstanceError):
    run_config.RunConfig().training.seed = 1


# ---- the configuration of a run ------------------------------------------------------------------


def test_leaf_names_are_unique_since_they_are_flags():
  counts = collections.Counter(
      name.rpartition(".")[2] for name, _, _ in config.leaves(run_config.RunConfig))
  assert [name for name, count in counts.items() if count > 1] == []


def test_every_default_is_valid_and_every_setting_has_help():
  assert config.from_dict(
      run_config.RunConfig, config.to_dict(run_config.RunConfig())) == run_config.RunConfig()
  for name, _, metadata in _settings(run_config.RunConfig):
    assert metadata["help"].endswith("."), name


# ---- flags ---------------------------------------------------------------------------------------


def _resolved(*arguments):
  values = flags.FlagValues()
  app.define_config_flags(run_config.RunConfig, values)
  values(["program", *arguments])
  return app.config_from_flags(run_config.RunConfig, values)


def test_without_flags_the_defaults_apply():
  assert _resolved() == run_config.RunConfig()


@pytest.mark.parametrize("flag, name, expected", [
    ("--hidden_width=8", "model.hidden_width", 8),
    ("--head_widths=16,8", "model.head_widths", (16, 8)),
    ("--head_widths=", "model.head_widths", ()),
    ("--pooling=max", "model.pooling", ("max",)),
    ("--loss_weights=1,0.5", "loss.loss_weights", (1.0, 0.5)),
    ("--max_graphs=3", "data.max_graphs", 3),
    ("--notensorboard", "training.tensorboard", False),
    ("--learning_rate=1", "optimizer.learning_rate", 1.0),
    ("--data_root=/d", "data.data_root", "/d"),
    ("--model=attention_gnn", "model.model", "attention_gnn"),
])
def test_each_kind_of_flag(flag, name, expected):
  resolved = _resolved(flag)
  assert resolved == config.override(run_config.RunConfig(), {name: expected})
  assert dict((leaf, value) for leaf, _, value in config.leaves(resolved))[name] == expected


def test_every_setting_has_a_flag_whose_help_states_its_default():
  values = flags.FlagValues()
  app.define_config_flags(run_config.RunConfig, values)
  for name, _, _ in config.leaves(run_config.RunConfig):
    assert "Default: " in values[name.rpartition(".")[2]].help, name


def test_defaults_then_the_file_then_the_flags(tmp_path):
  path = tmp_path / "settings.json"
  path.write_text(json.dumps({"model": {"hidden_width": 8}, "training": {"seed": 5, "epochs": 9}}))
  resolved = _resolved(f"--config={path}", "--seed=7")
  assert (resolved.model.hidden_width, resolved.training.epochs) == (8, 9)  # The file's.
  assert resolved.training.seed == 7  # The flag over the file.
  assert resolved.model.opcode_width == run_config.ModelConfig().opcode_width
  # A flag that repeats the default overrides the file, too.
  default = run_config.ModelConfig().hidden_width
  assert _resolved(f"--config={path}", f"--hidden_width={default}").model.hidden_width == default


def test_the_file_may_be_a_run_directorys_config_json(tmp_path):
  stored = config.override(run_config.RunConfig(), {"training.seed": 3})
  path = tmp_path / "config.json"
  path.write_text(json.dumps({"config": config.to_dict(stored), "hash": "x", "about": {}}))
  assert _resolved("--config", str(path)) == stored


def test_a_comment_in_the_file_is_left_out(tmp_path):
  path = tmp_path / "settings.json"
  path.write_text(json.dumps({"comment": "how", "note": "why", "training": {"seed": 5}}))
  assert _resolved("--config", str(path)).training.seed == 5


@pytest.mark.parametrize("flag, message", [
    ("--learning_rate=0", "flags: optimizer.learning_rate = 0.0; expected greater than 0.0"),
    ("--head_widths=8,x", "--head_widths=8,x: expected a comma-separated list like 64"),
    ("--model=gnn", "expected one of: residual_gnn, attention_gnn"),
    ("--pooling=mean,median", "expected one of: mean, sum, max"),
])
def test_a_wrong_value_names_the_flag(flag, message):
  with pytest.raises(errors.ConfigError) as caught:
    _resolved(flag)
  assert message in str(caught.value)


def test_a_wrong_type_or_an_unknown_flag_is_refused_by_the_parser():
  with pytest.raises(flags.IllegalFlagValueError, match="batch_size"):
    _resolved("--batch_size=many")
  with pytest.raises(flags.UnrecognizedFlagError, match="hidden_width"):
    _resolved("--hiden_width=3")


@pytest.mark.parametrize("text, error, message", [
    ('{"modle": {}}', errors.ConfigError, "unknown setting 'modle' (did you mean 'model'?)"),
    ("{", errors.DataError, "is not valid JSON"),
    ("[]", errors.ConfigError, "expected an object"),
    (None, errors.MissingDataError, "no settings file"),
])
def test_a_wrong_file_is_named(tmp_path, text, error, message):
  path = tmp_path / "settings.json"
  if text is not None:
    path.write_text(text)
  with pytest.raises(error) as caught:
    _resolved(f"--config={path}")
  assert str(path) in str(caught.value) and message in str(caught.value)


@testdata.required
def test_a_number_of_hundreds_of_digits_from_the_field():
  path = testdata.path("field_cases") / "hostile" / "config_huge_lr.json"
  with pytest.raises(errors.DataError, match="config_huge_lr.json"):
    files.read_json(path)
  values = json.loads(path.read_text(encoding="utf-8"))
  with pytest.raises(errors.ConfigError, match="optimizer.learning_rate = 1.* of at most 64 bits"):
    config.from_dict(run_config.RunConfig, values)
