"""`python -m rnnfast` is the command `rnnfast`."""

from rnnfast.cli import main

if __name__ == "__main__":
    main()
