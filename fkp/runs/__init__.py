"""Command line, configuration, and what a run leaves, resumes and reports."""
