"""Images in, faces out: detectors, engines, the predictor, what is written, and evaluation."""
