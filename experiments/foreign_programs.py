"""Exports programs that are in no collection, for the live study of tuning.

  python -m experiments.foreign_programs --output runs/foreign

Ten programs come from JAX (see `foreign_jax`) and six from TensorFlow. Their families are not in
the collector's catalogue. Each compiles in seconds and runs in 0.1 to 20 ms on one core. `--hlo`
adds programs from files. Files that exist are kept.
"""

from collections.abc import Callable
import pathlib
import subprocess
from typing import Any

from absl import flags
import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.cli import app
from tpugraphs_rank.collect import environment

_ROOT = pathlib.Path(__file__).resolve().parents[1]


def two_towers(tf: Any) -> tuple[Callable, list[Any]]:
  """A recommender: tables of users and items, two towers, and scores of all pairs of a batch."""
  users, items = (tf.keras.layers.Embedding(1000, 32) for _ in range(2))
  first, second = (tf.keras.Sequential([tf.keras.layers.Dense(96, "relu"),
                                        tf.keras.layers.Dense(48)]) for _ in range(2))

  def function(user, history):
    one = first(users(user))
    other = second(tf.reduce_mean(items(history), axis=1))
    scores = tf.matmul(tf.nn.l2_normalize(one, 1), tf.nn.l2_normalize(other, 1), transpose_b=True)
    return tf.nn.softmax(10.0 * scores)

  return function, [tf.zeros(256, tf.int32), tf.zeros((256, 10), tf.int32)]


def image_decoder(tf: Any) -> tuple[Callable, list[Any]]:
  """The decoder of a generator of images: transposed convolutions."""
  layers = tf.keras.layers
  model = tf.keras.Sequential([
      layers.Dense(4 * 4 * 48, "relu"), layers.Reshape((4, 4, 48)),
      layers.Conv2DTranspose(24, 3, 2, "same", activation="relu"),
      layers.Conv2DTranspose(12, 3, 2, "same", activation="relu"),
      layers.Conv2DTranspose(3, 3, 2, "same", activation="sigmoid")])
  return model, [tf.zeros((4, 32))]


def dilated_stack(tf: Any) -> tuple[Callable, list[Any]]:
  """WaveNet: causal convolutions with growing distances, gates, and sums of skips."""
  layers = tf.keras.layers
  inputs = tf.keras.Input((128, 16))
  x, skips = inputs, []
  for distance in (1, 2, 4, 8):
    filtered, gate = (layers.Conv1D(16, 2, padding="causal", dilation_rate=distance)(x)
                      for _ in range(2))
    value = tf.tanh(filtered) * tf.sigmoid(gate)
    skips.append(layers.Conv1D(24, 1)(value))
    x += layers.Conv1D(16, 1)(value)
  outputs = layers.Conv1D(32, 1)(tf.nn.relu(tf.add_n(skips)))
  return tf.keras.Model(inputs, outputs), [tf.zeros((2, 128, 16))]


def point_cloud(tf: Any) -> tuple[Callable, list[Any]]:
  """PointNet: a network turns each cloud before others describe its points."""
  layers = tf.keras.layers
  turn = tf.keras.Sequential([layers.Dense(32, "relu"), layers.Dense(64, "relu"),
                              layers.GlobalMaxPooling1D(), layers.Dense(9)])
  describe = tf.keras.Sequential([layers.Dense(32, "relu"), layers.Dense(96, "relu"),
                                  layers.GlobalMaxPooling1D(), layers.Dense(10)])

  def function(points):
    return describe(tf.matmul(points, tf.reshape(turn(points), (-1, 3, 3)) + tf.eye(3)))

  return function, [tf.zeros((8, 256, 3))]


def style_statistics(tf: Any) -> tuple[Callable, list[Any]]:
  """Style transfer: features of two images, and the distance of their Gram matrices."""
  layers = tf.keras.layers
  stages = [tf.keras.Sequential([layers.Conv2D(width, 3, strides, "same", activation="relu")])
            for width, strides in ((12, 1), (24, 2), (32, 2))]

  def function(image, style):
    total = 0.0
    for stage in stages:
      image, style = stage(image), stage(style)
      grams = [tf.einsum("bxyc,bxyd->bcd", one, one) / float(one.shape[1] ** 2)
               for one in (image, style)]
      total += tf.reduce_sum((grams[0] - grams[1]) ** 2, axis=(1, 2))
    return total

  return function, [tf.zeros((2, 40, 40, 3)), tf.zeros((2, 40, 40, 3))]


def stacked_recurrence(tf: Any) -> tuple[Callable, list[Any]]:
  """A translator's encoder: a recurrent layer in both directions over embedded words, and another
  over its results, as loops."""
  layers = tf.keras.layers
  model = tf.keras.Sequential([
      layers.Embedding(500, 32), layers.Bidirectional(layers.LSTM(32, return_sequences=True)),
      layers.GRU(48, return_sequences=True), layers.Dense(64)])
  return model, [tf.zeros((8, 12), tf.int32)]


PROGRAMS = (two_towers, image_decoder, dilated_stack, point_cloud, style_statistics,
            stacked_recurrence)


def export_tensorflow(folder: pathlib.Path) -> None:
  """Writes every TensorFlow program to `<folder>/tf_<name>.hlo.pb`, unless the file exists."""
  missing = [build for build in PROGRAMS if not _path(folder, build).exists()]
  if not missing:
    return
  import tensorflow as tf
  for build in missing:
    tf.keras.utils.set_random_seed(0)
    function, arguments = build(tf)
    function(*arguments)  # Creates the weights outside the compiled function.
    compiled = tf.function(function, jit_compile=True)
    content = compiled.experimental_get_compiler_ir(*arguments)(stage="hlo_serialized")
    partial = _path(folder, build).with_suffix(".partial")
    partial.write_bytes(content)
    partial.replace(_path(folder, build))


def _path(folder: pathlib.Path, build: Callable) -> pathlib.Path:
  return folder / f"tf_{build.__name__}.hlo.pb"


def export(folder: pathlib.Path, more: list[pathlib.Path]) -> list[pathlib.Path]:
  """Exports all programs, and copies those of files.

  Returns:
    The files, sorted by name.

  Raises:
    MissingDataError: a file does not exist.
    OutputError: the JAX programs cannot be exported.
  """
  missing = [path for path in more if not path.is_file()]
  if missing:
    raise errors.MissingDataError(f"no file {missing[0]}; expected files with HLO")
  folder.mkdir(parents=True, exist_ok=True)
  with environment.process_variables() as variables:
    status = subprocess.run(
        [str(environment.python()), "-m", "experiments.foreign_jax", "--folder",
         str(folder.resolve())], cwd=_ROOT, check=False,
        env={**variables, "PYTHONPATH": str(_ROOT), "JAX_PLATFORMS": "cpu"}).returncode
  if status:
    raise errors.OutputError(f"experiments.foreign_jax ended with status {status}")
  export_tensorflow(folder)
  for path in more:
    if not (folder / path.name).exists():
      files.copy(path, folder / path.name)
  return sorted(path for path in folder.iterdir() if ".hlo" in path.name and ".pb" in path.name)


def define_flags() -> None:
  """Defines the flags."""
  flags.DEFINE_string("output", "runs/foreign", "Folder of the programs.")
  flags.DEFINE_list("hlo", [], "Files with more programs, which are copied to the folder.")


def main(_: list[str]) -> None:
  """Exports the programs and lists them."""
  from tpugraphs_rank.collect.hlo import prepare
  values = flags.FLAGS
  for path in export(pathlib.Path(values.output), list(map(pathlib.Path, values.hlo))):
    try:
      program = prepare.read(path)[0]
      sites = len(prepare.with_sites(program).config_index_to_node)
    except errors.TpuGraphsRankError as error:
      print(f"{path.name}: {error}")
      continue
    instructions = int(np.sum([len(computation.instructions)
                               for computation in program.data.module.computations]))
    print(f"{path.name}: {instructions} instructions, {sites} of them with a choice of layouts")


if __name__ == "__main__":
  app.run(main, define_flags)
