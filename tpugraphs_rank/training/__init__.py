"""Training runs and the run directories that they leave."""
