"""Mutated inputs for every reader, and commands that are killed at random: `./run soak`."""
