"""Training, run directories, and scoring with trained runs."""
