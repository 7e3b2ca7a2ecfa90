"""Find faces and points in images and videos: engines, predictor, tracking, writers, evaluation."""
