"""What `experiments.benchmark` measures."""
