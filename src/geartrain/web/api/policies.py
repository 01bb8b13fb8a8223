"""``/api/v1/policies``, and the policy of a function or of all whose names fit a pattern."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, Field

from geartrain.client.policy import FunctionPolicy, policy_word
from geartrain.jobserver.policy import KEYS
from geartrain.web.api.asking import Done, Model, Operator, Reader, ask, order, problems, rows_of, word
from geartrain.web.policy_keys import EXAMPLES, PAGE_OF, explained
from geartrain.web.problems import Problem
from geartrain.wire.text import as_text

router: Final = APIRouter(tags=["policies"])
Name = Annotated[str, Path(description="A function, or a pattern with *", examples=["resize"])]


class Policy(BaseModel):
    """What is set for a function, or for all whose names fit a pattern."""

    name: str
    source: str = Field(description="command, or file for the configuration file")
    keys: dict[str, str] = Field(examples=[{"attempts": "3", "timeout": "10s"}])


class PolicyList(BaseModel):
    """All policies."""

    policies: list[Policy]


class PolicyKey(BaseModel):
    """One key that a policy may have."""

    key: str = Field(examples=["timeout"])
    form: str = Field(description="What may stand there", examples=["time"])
    example: str = Field(description="A value", examples=["30s"])
    default: str = Field(description="What counts where it is not set; empty: there is no such limit or rule")
    meaning: str
    page: str = Field(description="The page of the documentation, below policies/", examples=["timeout"])


class PolicyKeys(BaseModel):
    """All keys."""

    keys: list[PolicyKey]


class NewPolicy(Model):
    """All keys of a policy with their values."""

    keys: dict[str, str | int | float] = Field(min_length=1, examples=[{"attempts": 3, "timeout": "10s"}])


@router.get("/policies", operation_id="list_policies", summary="List policies", response_model=PolicyList)
async def list_policies(request: Request, _: Reader) -> PolicyList:
    """All policies, with patterns."""
    return PolicyList(policies=await _policies(request))


@router.get(
    "/policy-keys", operation_id="list_policy_keys", summary="List the keys of policies", response_model=PolicyKeys
)
async def list_policy_keys(_: Reader) -> PolicyKeys:
    """What may stand in a policy, and what it means."""
    return PolicyKeys(
        keys=[
            PolicyKey(
                key=key,
                form=form,
                example=EXAMPLES[key],
                default=default,
                meaning=meaning,
                page=PAGE_OF[key],
            )
            for key, (form, _) in KEYS.items()
            for meaning, default in [explained(key)]
        ]
    )


@router.get(
    "/functions/{name}/policy",
    operation_id="show_policy",
    summary="A function's policy",
    response_model=Policy,
    responses=problems(404),
)
async def show_policy(request: Request, name: Name, _: Reader) -> Policy:
    """The policy in force for a function, be it by a pattern."""
    for policy in await _policies(request, word(name, "The function")):
        return policy
    raise Problem(404, "unknown-policy", f"No policy holds for {name!r}")


@router.put(
    "/functions/{name}/policy",
    operation_id="set_policy",
    summary="Set a policy",
    response_model=Done,
    responses=problems(400, 503),
)
async def set_policy(request: Request, name: Name, _: Operator, policy: NewPolicy) -> Done:
    """The keys that are named hold from now on, and no others."""
    encoded = word(name, "The function")
    before = [
        each for each in await _policies(request, encoded) if each.name == as_text(encoded)
    ]  # else it is of a pattern
    others = {key: None for each in before for key in each.keys}  # an empty value takes a key away
    keys = {**others, **policy.keys}
    words = [policy_word(key, value) for key, value in keys.items()]
    await order(request, "set policy", name, b"policy", b"set", encoded, *words)
    return Done()


@router.delete(
    "/functions/{name}/policy",
    operation_id="unset_policy",
    summary="Take a policy away",
    response_model=Done,
    responses=problems(404),
)
async def unset_policy(request: Request, name: Name, _: Operator) -> Done:
    """One of the configuration file, or of a pattern, counts again."""
    await order(request, "unset policy", name, b"policy", b"unset", word(name, "The function"))
    return Done()


async def _policies(request: Request, *words: bytes) -> list[Policy]:
    command = await ask(request, b"policy", b"show", *words, form="listing")
    return await rows_of(
        command,
        FunctionPolicy.read,
        lambda policy: Policy(name=policy.name, source=policy.source, keys=policy.keys),
    )
