"""Check a data set: `python -m fkp.doctor data=csv data.root=my_faces`."""

import json
from pathlib import Path

from omegaconf import DictConfig

from fkp.runs import command_line, config


@command_line.main("doctor")
def doctor(cfg: DictConfig) -> None:
    """Print and save the findings, worst first, and a grid of suspect faces.

    The exit code is 1 if any finding is an error.
    """
    from fkp.doctor.examination import examine
    from fkp.doctor.findings import LEVELS, make_folder, save, show
    from fkp.files.images import write_image

    # Made first, as the checks take minutes.
    run_dir = Path(cfg.run_dir)
    make_folder(run_dir)

    source = config.build(cfg.data)
    findings, grid = examine(source, cfg.worst)
    save(findings, run_dir / "findings.json")

    show(findings)
    if grid is not None:
        print(f"faces       {write_image(run_dir / 'worst.png', grid)}")
    print(f"findings    {run_dir / 'findings.json'}")
    counts = {f"{level}s": sum(found.level == level for found in findings) for level in LEVELS}
    print(json.dumps(counts))

    if counts["errors"]:
        raise SystemExit(1)


if __name__ == "__main__":
    doctor()
