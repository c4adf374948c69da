"""JAX in a measuring process, with the protocol's settings."""

from collections.abc import Mapping
import os
import pathlib
from typing import Any

from tpugraphs_rank import commands
from tpugraphs_rank import errors
from tpugraphs_rank.collect.common import protocol


def import_jax(environment: Mapping[str, str] = protocol.ENVIRONMENT,
               cache: pathlib.Path | None = None) -> Any:
  """Imports JAX with the protocol's settings.

  Args:
    environment: variables that must have been set when the process started.
    cache: folder that keeps all compiled programs; None: nothing is kept.

  Raises:
    ConfigError: a variable was not set before the process started.
  """
  wrong = [name for name, value in environment.items() if os.environ.get(name) != value]
  if wrong:
    raise errors.ConfigError(
        f"{', '.join(wrong)} must have the protocol's value before JAX is imported; start the "
        f"measurement with {commands.command('collect', 'tile')} or "
        f"{commands.command('collect', 'layout')}")
  import jax  # pylint: disable=import-outside-toplevel
  jax.config.update("jax_cpu_enable_async_dispatch", False)
  jax.config.update("jax_enable_compilation_cache", cache is not None)
  if cache is not None:
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
  return jax
