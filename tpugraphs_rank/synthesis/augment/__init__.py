"""From synthetic graphs to training signal: graphs become runnable programs, which are measured."""
