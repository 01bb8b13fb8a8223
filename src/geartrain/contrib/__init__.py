"""Ties to other people's tools: the pytest plugin, with a job server within the test and an eager client."""
