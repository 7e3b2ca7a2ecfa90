"""Find the 68 key points of every face in an image, and train the models that do it.

from fkp import Predictor
for face in Predictor.load()("photo.jpg"):
    print(face.box, face.points)
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Face", "Predictor"]

if TYPE_CHECKING:
    from fkp.face import Face
    from fkp.inference.predictor import Predictor


def __getattr__(name: str) -> Any:
    # Lazy, so that `--help`, a config error and shell completion never wait for torch.
    if name in __all__:
        from fkp.inference import predictor

        return getattr(predictor, name)
    raise AttributeError(f"module 'fkp' has no attribute {name!r}")
