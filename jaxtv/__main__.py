"""`python -m jaxtv`: the `jaxtv` command."""

from jaxtv.cli import main

if __name__ == "__main__":
    main()
