"""``/api/v1/session``: a browser shows a token once, and is known by a cookie from then on."""

from __future__ import annotations

from http.cookies import CookieError, SimpleCookie
from typing import Final

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from geartrain.web.access import COOKIE, SESSION_SECONDS, Session
from geartrain.web.api.asking import Done, Model, face_of, identity_of, problems
from geartrain.web.problems import Problem
from geartrain.web.requests import header

router: Final = APIRouter(tags=["session"])


class Login(Model):
    """A token of the configuration; empty where there are none."""

    token: str = Field("", max_length=1000)


class Who(BaseModel):
    """Who asks, and what they may do."""

    name: str
    roles: list[str] = Field(examples=[["read", "submit"]])
    csrf: str = Field(description="For the header X-CSRF-Token of what changes something; empty without a session")


@router.post(
    "/session",
    operation_id="open_session",
    summary="Open a session",
    response_model=Who,
    responses=problems(429),
)
async def open_session(request: Request, login: Login) -> Response:
    """The answer sets a cookie that scripts can't read and other sites can't use."""
    identity = identity_of(request)
    secret, session = face_of(request).access.open_session(login.token, identity.host)
    face_of(request).audit.note(session.identity.name, identity.host, "open session")
    response = JSONResponse(_who(session).model_dump())
    response.set_cookie(
        COOKIE,
        secret,
        max_age=int(SESSION_SECONDS),
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return response


@router.get("/session", operation_id="show_session", summary="Who asks", response_model=Who)
async def show_session(request: Request) -> Who:
    """Who asks, be it by a token or a session."""
    identity = identity_of(request)
    session = face_of(request).access.session(_secret(request))
    if session is not None:
        return _who(session)
    return Who(name=identity.name, roles=sorted(identity.roles), csrf="")


@router.delete(
    "/session", operation_id="close_session", summary="Close the session", response_model=Done, responses=problems(404)
)
async def close_session(request: Request) -> Response:
    """The cookie is worth nothing from now on."""
    identity = identity_of(request)
    access = face_of(request).access
    secret = _secret(request)
    if access.session(secret) is None:
        raise Problem(404, "no-session", "There is no session: open one with POST /api/v1/session")
    access.close_session(secret)
    face_of(request).audit.note(identity.name, identity.host, "close session")
    response = JSONResponse(Done().model_dump())
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return response


def _who(session: Session) -> Who:
    return Who(name=session.identity.name, roles=sorted(session.identity.roles), csrf=session.csrf)


def _secret(request: Request) -> str:
    try:
        return SimpleCookie(header(request.scope, b"cookie"))[COOKIE].value
    except (CookieError, KeyError):
        return ""
