"""The command line, ``geartrain``: see ``commands`` for how a command is found and how it ends."""
