"""Read files of unknown origin within limits, write files atomically, and download archives."""
