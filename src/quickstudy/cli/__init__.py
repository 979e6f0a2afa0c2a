"""Command line: tasks, pretrain, adapt, predict, evaluate, report."""
