"""Random histories in which functions get policies and lose them; ``policy_world`` sees that all promises hold."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from policy_world import ACTIONS, POLICIES, PolicyWorld

numbers = st.integers(0, 100)
often = st.sampled_from([name for name, weight in ACTIONS.items() for _ in range(weight)])


class PolicyHistories(RuleBasedStateMachine):
    """Two clients, three workers, an administrator; two functions, and policies by name and pattern."""

    @initialize(
        results=st.sampled_from(("results=", "results=20s", "results=2s stale=1m")),
        policies=st.lists(st.tuples(numbers, st.integers(0, len(POLICIES) - 1)), max_size=4),
        which=numbers,
    )
    def begin(self, results: str, policies: list[tuple[int, int]], which: int) -> None:
        self.world = PolicyWorld()
        self.world.act("connect_worker", 0, which, 0)
        self.world.act("policy", 0, POLICIES.index(results), 0)
        for name, policy in policies:
            self.world.act("policy", name, policy, 0)

    @rule(action=often, a=numbers, b=numbers, c=numbers)
    def something_happens(self, action: str, a: int, b: int, c: int) -> None:
        self.world.act(action, a, b, c)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.end()


PolicyHistories.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestPolicyHistories = PolicyHistories.TestCase
