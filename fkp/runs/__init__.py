"""Run the scripts: command line, configuration, checkpoints, resume, sweeps and reports."""
