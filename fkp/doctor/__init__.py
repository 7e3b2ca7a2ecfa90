"""Check a data set before training: `python -m fkp.doctor data=…`."""
