"""``python -m geartrain`` is the command ``geartrain``."""

from geartrain.cli.main import main

if __name__ == "__main__":  # a process that multiprocessing spawns imports this file again
    main()
