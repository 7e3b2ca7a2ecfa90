"""What is wrong with a data set: `python -m fkp.doctor data=…`."""
