"""Write the samples with the tools themselves: `python write.py`, in an environment that has them.

See README.md for their versions. `truth.json` holds the points in IMAGE pixels.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
TRUTH = json.loads((HERE / "truth.json").read_text())
NAMES = list(TRUTH[0]["points"])
EDGES = [(0, 2), (1, 2), (3, 4), (4, 5)]
PAIRS = [("eye_right", "eye_left"), ("mouth_right", "mouth_left")]


def points(face: dict, offset: float = 0.0) -> dict[str, tuple[float, float]]:
    """The labelled points of a face; offset 0.5 counts from the corner of the top-left pixel."""
    return {
        name: (place[0] + offset, place[1] + offset)
        for name, place in face["points"].items()
        if place[0] is not None
    }


def box(face: dict) -> tuple[float, float, float, float]:
    """Left, top, width and height around the points, from the corner of the image."""
    own = np.array(list(points(face, 0.5).values()))
    return (*own.min(0), *(own.max(0) - own.min(0)))


def datumaro() -> None:
    import datumaro as dm
    from datumaro.components.annotation import AnnotationType, LabelCategories, PointsCategories

    labels, joints = LabelCategories(), PointsCategories()
    labels.add("face")
    joints.add(0, NAMES, [(first + 1, second + 1) for first, second in EDGES])
    items = []
    for image in dict.fromkeys(face["image"] for face in TRUTH):
        own = []
        for face in (face for face in TRUTH if face["image"] == image):
            places = points(face, 0.5)
            flat = [value for name in NAMES for value in places.get(name, (0.0, 0.0))]
            visible = [2 if name in places else 0 for name in NAMES]
            own.append(dm.Points(flat, visible, label=0, id=len(own) + 1, group=len(own) + 1))
            own.append(dm.Bbox(*box(face), label=0, id=len(own), group=len(own)))
        media = dm.Image.from_file(path=str(HERE / "images" / image))
        items.append(
            dm.DatasetItem(Path(image).stem, media=media, annotations=own, subset="default")
        )
    dataset = dm.Dataset.from_iterable(
        items, categories={AnnotationType.label: labels, AnnotationType.points: joints}
    )
    with tempfile.TemporaryDirectory() as folder:
        dataset.export(folder, "coco_person_keypoints", save_media=False)
        shutil.copy(
            next(Path(folder).rglob("person_keypoints_default.json")), HERE / "coco_datumaro.json"
        )


CONFIG = """<View><Image name="image" value="$image"/>
<RectangleLabels name="face" toName="image"><Label value="face"/></RectangleLabels>
<KeyPointLabels name="points" toName="image">{}</KeyPointLabels></View>"""


def label_studio_tasks(config: str) -> list[dict]:
    """Tasks as Label Studio exports them, of the regions that its SDK makes."""
    from label_studio_sdk.label_interface import LabelInterface

    interface, tasks = LabelInterface(config), {}
    for face in TRUTH:
        width, height = face["size"]
        size = {"original_width": width, "original_height": height, "image_rotation": 0}
        percent = np.array([100 / width, 100 / height])
        (x, y), (w, h) = np.array(box(face)).reshape(2, 2) * percent
        own = dict(label=["face"], x=x, y=y, width=w, height=h, rotation=0)
        rectangle = interface.get_control("face").label(**own)
        regions = [rectangle._dict() | size]
        for name, place in points(face, 0.5).items():
            px, py = np.array(place) * percent
            region = interface.get_control("points").label(label=[name], x=px, y=py)
            regions.append(region._dict() | size | {"parentID": rectangle.id})

        number = len(tasks) + 1
        annotation = {"id": number, "result": [], "was_cancelled": False, "ground_truth": False}
        task = {
            "id": number,
            "data": {"image": f"/data/upload/3/0a1b2c3d-{face['image']}"},
            "annotations": [annotation | {"completed_by": 1}],
            "predictions": [],
        }
        tasks.setdefault(face["image"], task)["annotations"][0]["result"] += regions
    return list(tasks.values())


def label_studio() -> None:
    from label_studio_sdk._extensions.label_studio_tools.core.label_config import parse_config
    from label_studio_sdk.converter import Converter

    rows = "".join(f'<Label value="{name}" model_index="{k}"/>' for k, name in enumerate(NAMES))
    config = CONFIG.format(rows)
    tasks = label_studio_tasks(config)
    (HERE / "labelstudio.json").write_text(json.dumps(tasks, indent=1) + "\n")

    # JSON-MIN and COCO hold one face of an image; the converter looks for the images.
    for task in tasks:
        result = task["annotations"][0]["result"]
        first = next(one["id"] for one in result if one["type"] == "rectanglelabels")
        task["annotations"][0]["result"] = [o for o in result if o.get("parentID") == first]
        task["data"]["image"] = str(HERE / "images" / task["data"]["image"].partition("-")[2])
    with tempfile.TemporaryDirectory() as folder:
        one = Path(folder) / "one.json"
        one.write_text(json.dumps(tasks))
        converter = Converter(parse_config(config), folder, download_resources=False)
        converter.convert_to_json_min(str(one), folder + "/labelstudio_min", is_dir=False)
        converter.convert_to_coco(str(one), folder + "/coco_labelstudio", is_dir=False)
        for name in ("labelstudio_min", "coco_labelstudio"):
            text = json.dumps(
                json.loads((Path(folder) / name / "result.json").read_text()), indent=1
            )
            text = text.replace(str(HERE / "images"), "/data/upload/3")
            (HERE / f"{name}.json").write_text(text + "\n")


def labelme() -> None:
    from labelme._label_file import write_label_file

    for image in dict.fromkeys(face["image"] for face in TRUTH):
        own = [face for face in TRUTH if face["image"] == image]
        shapes = [
            {
                "label": name,
                "points": [list(place)],
                "group_id": k if len(own) > 1 else None,
                "description": "",
                "shape_type": "point",
                "flags": {},
                "mask": None,
            }
            for k, face in enumerate(own)
            for name, place in points(face, 0.5).items()
        ]
        left, top, width, height = box(own[0])
        shapes.append(
            {
                "label": "face",
                "points": [[left, top], [left + width, top + height]],
                "group_id": 0 if len(own) > 1 else None,
                "description": "",
                "shape_type": "rectangle",
                "flags": {},
                "mask": None,
            }
        )
        width, height = own[0]["size"]
        write_label_file(
            str(HERE / "labelme" / f"{Path(image).stem}.json"),
            shapes=shapes,
            image_path=f"../images/{image}",
            image_height=height,
            image_width=width,
        )


def sleap() -> None:
    import sleap_io

    images = list(dict.fromkeys(face["image"] for face in TRUTH))
    skeleton = sleap_io.Skeleton(
        list(NAMES), edges=[(NAMES[a], NAMES[b]) for a, b in EDGES], symmetries=PAIRS, name="face"
    )
    video = sleap_io.Video.from_filename([f"images/{image}" for image in images])
    frames = []
    for number, image in enumerate(images):
        instances = [
            sleap_io.Instance.from_numpy(
                np.array([[np.nan if v is None else v for v in face["points"][n]] for n in NAMES]),
                skeleton=skeleton,
            )
            for face in TRUTH
            if face["image"] == image
        ]
        frames.append(sleap_io.LabeledFrame(video=video, frame_idx=number, instances=instances))
    labels = sleap_io.Labels(frames)
    labels.save("sleap.pkg.slp", embed="user")
    with tempfile.TemporaryDirectory() as folder:
        # YOLO divides what it is given by the size: coordinates from the corner.
        for frame in labels:
            for instance in frame.instances:
                instance.points["xy"] += 0.5
        sleap_io.save_ultralytics(labels, folder, split_ratios={"train": 1.0})
        shutil.copy(Path(folder) / "data.yaml", HERE / "yolo" / "data.yaml")
        for file in sorted(Path(folder).rglob("labels/*.txt")):
            shutil.copy(file, HERE / "yolo" / "labels" / file.name)
    for frame in labels:
        for instance in frame.instances:
            instance.points["xy"] -= 0.5
    labels.save("sleap.slp", embed=False)


def deeplabcut() -> None:
    """Save layers of points as the plug-in of napari does that DeepLabCut labels with."""
    import pandas as pd
    from napari_deeplabcut import _writer
    from napari_deeplabcut.core.schemas import DLCHeaderModel

    images = list(dict.fromkeys(face["image"] for face in TRUTH))
    for folder, individuals in (("deeplabcut", [""]), ("deeplabcut_many", ["first", "second"])):
        levels = [["ann"], individuals, NAMES, ["x", "y"]]
        header = ["scorer", "individuals", "bodyparts", "coords"]
        columns = pd.MultiIndex.from_product(levels, names=header)
        rows = [
            (images.index(face["image"]), place, name, individuals[face["face"]])
            for face in TRUTH
            if face["face"] < len(individuals)
            for name, place in points(face).items()
        ]
        attributes = {
            "name": "CollectedData_ann",
            "properties": {
                "label": [name for _, _, name, _ in rows],
                "id": [individual for *_, individual in rows],
                "likelihood": [1.0] * len(rows),
            },
            "metadata": {
                "header": DLCHeaderModel(columns=columns),
                "paths": [f"labeled-data/video/{image}" for image in images],
                "root": str(HERE / folder),
            },
        }
        # The axes of napari: frame, row, column.
        data = np.array([(number, place[1], place[0]) for number, place, _, _ in rows])
        _writer.write_hdf_napari_dlc("layer.h5", data, attributes)


if __name__ == "__main__":
    os.chdir(HERE)
    for folder in ("labelme", "yolo/labels", "deeplabcut", "deeplabcut_many"):
        (HERE / folder).mkdir(parents=True, exist_ok=True)
    for write in (datumaro, label_studio, labelme, sleap, deeplabcut):
        write()
