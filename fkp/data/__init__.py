"""Where labelled faces come from. Each source has `split` (the rule) and `read()`, which gives a FaceTable."""
