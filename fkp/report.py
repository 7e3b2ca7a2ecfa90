"""Report a sweep: `python -m fkp.report [sweep=outputs/sweeps/…]`."""

from fkp.runs.report import main

if __name__ == "__main__":
    main()
