"""One random history of functions with policies: the machine of ``tests/jobserver/policy_world.py``, from a seed."""

from __future__ import annotations

import random
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "jobserver")]

from policy_world import ACTIONS, POLICIES, PolicyWorld  # noqa: E402


class PolicyHistory:
    """A history of so many steps; ``log`` tells them, the last one last."""

    def __init__(self, seed: int, steps: int = 400) -> None:
        self.random = random.Random(seed)
        self.steps = steps
        self.world = PolicyWorld()
        self.log = self.world.log
        self.log.append("functions with policies")

    def run(self) -> None:
        """Live it. Raises AssertionError, or whatever the job server raises, where something is wrong."""
        self.world.act("connect_worker", 0, 0, 0)
        for _ in range(self.random.randint(0, 5)):
            self.world.act("policy", self.random.randint(0, 4), self.random.randrange(len(POLICIES)), 0)
        for action in self.random.choices(list(ACTIONS), list(ACTIONS.values()), k=self.steps):
            self.world.act(action, *(self.random.randint(0, 100) for _ in range(3)))
        self.world.end()
