"""The process that gives a job server sockets, a clock, a store and a log: see ``process`` for its way in."""
