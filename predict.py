"""Find faces and their points: `python predict.py image=…`, an image, folder, video or camera."""

from fkp.runs.predict import predict

if __name__ == "__main__":
    predict()
