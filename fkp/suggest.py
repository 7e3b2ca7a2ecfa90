"""Suggest photos to label next: `python -m fkp.suggest image=photos [count=50]`."""

from fkp.runs.suggest import main

if __name__ == "__main__":
    main()
