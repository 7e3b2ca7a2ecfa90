"""Draw a learning curve: `python -m fkp.learning_curve data=csv data.root=my_faces`."""

from fkp.runs.learning_curve import learning_curve

if __name__ == "__main__":
    learning_curve()
