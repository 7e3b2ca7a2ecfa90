"""Score a model on labelled faces: `python evaluate.py ckpt=… data=youtube_faces data.root=…`."""

from fkp.runs.evaluate import evaluate

if __name__ == "__main__":
    evaluate()
