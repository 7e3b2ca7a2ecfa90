"""Find faces and their points in a picture: `python predict.py image=photo.jpg`."""

import json
from pathlib import Path

from omegaconf import DictConfig

from fkp import config, entry


@entry.main("predict")
def predict(cfg: DictConfig) -> None:
    """Write the drawn picture and a JSON file beside it, and print a table."""
    from fkp import runs
    from fkp.draw import draw
    from fkp.pictures import read_picture, write_picture
    from fkp.predictor import Predictor

    image = read_picture(cfg.image)
    ckpt = runs.chosen(cfg.ckpt)
    predictor = Predictor.load(ckpt, config.build(cfg.detector), cfg.device, cfg.passes, cfg.min_confidence)
    faces = predictor(image)

    out = Path(cfg.run_dir) / Path(cfg.image).stem
    picture = write_picture(out.with_suffix(".png"), draw(image, faces, predictor.markup))
    record = {"image": str(cfg.image), "ckpt": str(ckpt), "faces": [face.as_dict() for face in faces]}
    out.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    runs.show_faces(faces, cfg.image, ckpt, picture)


if __name__ == "__main__":
    predict()
