"""Run fitspike with `python -m fitspike`."""

from fitspike.cli.main import main

if __name__ == "__main__":
    main()
