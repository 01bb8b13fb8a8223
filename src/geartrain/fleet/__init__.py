"""The fleet: job servers that share one database, and take over from each other when one of them ends.

Each job server is a *member* with an id that the database gives it, and owns the jobs that it has stored. It renews a
*lease* there (``pulse``); whose lease is over, or whose session has ended, is *judged*, and the others *adopt* what it
had (``adoption``). Jobs whose workers are at another member go there (``moves``), and what is asked about a job that
is another's is asked there (``asking``). All that decides who may write a job is in the database: see ``store.fleet``.
"""

from geartrain.fleet.opening import open_fleet

__all__ = ["open_fleet"]
