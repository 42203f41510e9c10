"""The application: the HTTP interface below `/api/v1`, the page, and optuna-dashboard.

The dashboard's pages ask for `/api`, `/static`, `/artifacts` and `/csv` at the root, which is why
the interface has a prefix of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from importlib.metadata import version
from typing import Any

from a2wsgi import WSGIMiddleware
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException

from search.exceptions import (
    DatabaseError,
    InputError,
    SearchError,
    StorageUnreachableError,
    UnknownJobError,
    UnknownStudyError,
)
from search.service import job_routes, study_routes, web
from search.service.access import COOKIE_SECONDS, Access
from search.service.guard import (
    LOGIN,
    Application,
    Guard,
    Message,
    Receive,
    Scope,
    Send,
    refusal_page,
)
from search.service.schemas import REFUSALS
from search.service.services import Service
from search.study.history import DISTRIBUTION

API = "/api/v1"
# In an origin of its own, without scripts; as an image in a page of ours it is shown as ever.
_ARTIFACT_POLICY = b"sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def make_application(
    service: Service,
    dashboard: Callable[..., Any],
    *,
    hosts: Collection[str],
    cookie: str,
) -> Application:
    """The whole application, behind its guard.

    Args:
        dashboard: optuna-dashboard, as a WSGI application.
        hosts, cookie: as those of `Guard`.
    """
    app = FastAPI(
        title="search",
        version=version(DISTRIBUTION),
        description="Searches for the best small network under a hard cap on parameters.",
        openapi_url=f"{API}/openapi.json",
        docs_url=None,  # that page would load scripts from elsewhere; ours is `web.docs`
        redoc_url=None,
    )
    app.state.service = service
    for router in (job_routes.router, study_routes.router):
        app.include_router(router, prefix=API, responses=REFUSALS)
    app.include_router(web.router)
    _add_login(app, service.access, cookie)
    app.add_exception_handler(SearchError, _search_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _own_error)  # which is printed by the server as well
    app.mount(API, _nothing_here)
    whole: Any = WSGIMiddleware(dashboard)
    app.mount("/", _sandboxed(whole))
    return Guard(app, service.access, hosts=hosts, cookie=cookie)


def _add_login(app: FastAPI, access: Access, cookie: str) -> None:
    @app.api_route(LOGIN, methods=["GET", "HEAD"], include_in_schema=False)
    def link(code: str = "") -> Response:
        return web.login_page(code)

    @app.post(LOGIN, include_in_schema=False)
    def login(request: Request, code: str = "") -> Response:
        role = access.use_link_code(code)
        if role is None:
            words = (
                "A link opens once, within ten minutes, but this one was used, is too old, or was "
                "made before the server started again; 'search link' makes another."
            )
            return HTMLResponse(refusal_page(words), status_code=401)
        answer = RedirectResponse("/", status_code=303)
        answer.set_cookie(
            cookie,
            access.make_cookie(role),
            max_age=COOKIE_SECONDS,
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
        )
        return answer


def _sandboxed(dashboard: Application) -> Application:
    """The dashboard, whose artifacts, files of whoever searches, may do nothing in its name."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = [(b"content-security-policy", _ARTIFACT_POLICY)]
                message = {**message, "headers": [*message.get("headers", []), *more]}
            await send(message)

        is_artifact = scope["path"].lstrip("/").startswith("artifacts")
        await dashboard(scope, receive, sending if is_artifact else send)

    return answer


async def _nothing_here(scope: Scope, receive: Receive, send: Send) -> None:
    """What is asked for below the interface's prefix, and is none of its routes."""
    words = f"The interface has no {scope['method']} of that path; {API}/docs lists what it has."
    await _error(404, "ServiceError", words)(scope, receive, send)


def _error(status: int, kind: str, message: str) -> JSONResponse:
    return JSONResponse({"error": {"type": kind, "message": message}}, status_code=status)


def _search_error(_request: Request, error: Exception) -> JSONResponse:
    match error:
        case UnknownJobError() | UnknownStudyError():
            status = 404
        case DatabaseError() | StorageUnreachableError():
            status = 503
        case InputError():
            status = 422
        case _:
            status = 500
    return _error(status, type(error).__name__, str(error))


def _validation_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    # Without the values: they may be what JSON does not know.
    wrong = [f"{'.'.join(map(str, e['loc'][1:])) or 'body'}: {e['msg']}" for e in error.errors()]
    return _error(
        422, "InputError", f"A request must be as it is described, but {'; '.join(wrong)}."
    )


def _own_error(_request: Request, _error_of_ours: Exception) -> JSONResponse:
    return _error(500, "ServiceError", "The server met an error of its own, which it has printed.")


def _http_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    answer = _error(error.status_code, "ServiceError", str(error.detail))
    answer.headers.update(error.headers or {})
    return answer
