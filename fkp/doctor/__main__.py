"""Say what is wrong with a data set: `python -m fkp.doctor data=csv data.root=my_faces`."""

import json
from pathlib import Path

from omegaconf import DictConfig

from fkp.runs import command_line, config


@command_line.main("doctor")
def doctor(cfg: DictConfig) -> None:
    """Print the findings, worst first, save them with a sheet of suspect faces; exit code 1 if any is an error."""
    from fkp.doctor.examination import examine
    from fkp.doctor.findings import LEVELS, make_folder, save, show
    from fkp.files.images import write_image

    run_dir = Path(cfg.run_dir)
    make_folder(run_dir)  # now: what is found takes minutes
    source = config.build(cfg.data)
    findings, sheet = examine(source, cfg.worst)
    save(findings, run_dir / "findings.json")
    show(findings)
    if sheet is not None:
        print(f"faces       {write_image(run_dir / 'worst.png', sheet)}")
    print(f"findings    {run_dir / 'findings.json'}")
    print(
        json.dumps(
            {f"{level}s": sum(finding.level == level for finding in findings) for level in LEVELS}
        )
    )
    if any(finding.level == "error" for finding in findings):
        raise SystemExit(1)


if __name__ == "__main__":
    doctor()
