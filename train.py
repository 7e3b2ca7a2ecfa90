"""Train a model: `python train.py [group=option] [key=value] …`; see `python train.py --help`."""

from fkp.runs.train import train

if __name__ == "__main__":
    train()
