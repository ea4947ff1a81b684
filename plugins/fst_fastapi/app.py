"""The application: which path does what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, PlainTextResponse, Response

from fst_fastapi.answer import Answer
from fst_fastapi.body import read_json
from fst_fastapi.chat import Chat, messages_of
from fst_fastapi.completions import Completion
from fst_fastapi.cors import Cors
from fst_fastapi.errors import ApiError, as_api_error, error_response, wrong_value
from fst_fastapi.field_table import CHAT, COMPLETIONS, DETOKENIZE, OLD, TOKENIZE
from fst_fastapi.gate import Gate
from fst_fastapi.generated_texts import GeneratedTexts
from fst_fastapi.guard import Guard
from fst_fastapi.metrics import CONTENT_TYPE
from fst_fastapi.openapi import MODEL_NAME, answers, body
from fst_fastapi.page_files import PAGE, page_response
from fst_fastapi.reference import reference_page

if TYPE_CHECKING:
    from fst_fastapi.keys import Keys
    from fst_fastapi.service import Service

__all__ = ["build_app"]


def build_app(service: Service, keys: Keys) -> FastAPI:
    """Return the application of one server."""
    app = FastAPI(
        title="FST",
        version=service.version,
        summary="A model behind OpenAI's interface.",
        docs_url=None,  # FastAPI's own load their scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        middleware=[
            Middleware(Cors, service=service),
            Middleware(Gate, service=service),
            Middleware(Guard, service=service, keys=keys),
        ],
        exception_handlers={HTTPException: _http_error},
    )
    _generating(app, service)
    _tokens(app, service)
    _models(app, service)
    _state(app, service)
    _documents(app)
    return app


def _generating(app: FastAPI, service: Service) -> None:
    @app.post(COMPLETIONS, responses=answers(COMPLETIONS), openapi_extra=body(service, COMPLETIONS))
    async def completions() -> Response:
        """Continue prompts."""
        return Answer(service, COMPLETIONS, Completion)

    @app.post(CHAT, responses=answers(CHAT), openapi_extra=body(service, CHAT))
    async def chat_completions() -> Response:
        """Take the assistant's turn in a conversation."""
        return Answer(service, CHAT, Chat)

    @app.post(OLD, responses=answers(OLD), openapi_extra=body(service, OLD))
    async def generated_texts() -> Response:
        """Continue a text, as FST's predecessor did."""
        return Answer(service, OLD, GeneratedTexts)


def _tokens(app: FastAPI, service: Service) -> None:
    async def read(request: Request, path: str) -> dict[str, Any]:
        settings = service.settings
        service.admit()
        said = await read_json(
            request.scope, request.receive, settings.max_body_bytes, settings.stall_seconds
        )
        values, _ = service.checkers[path].check(said)
        service.check_model(values["model"])
        return values

    @app.post(TOKENIZE, responses=answers(TOKENIZE), openapi_extra=body(service, TOKENIZE))
    async def tokenize(request: Request) -> Response:
        """Return the ids of a prompt or of a conversation, as a generation goes on from them."""
        values = await read(request, TOKENIZE)
        prompt, messages = values["prompt"], values["messages"]
        if (prompt is None) == (messages is None):
            raise wrong_value("prompt", "give either a prompt or messages")
        with service.line.enter(1):
            ids = await service.engine.encode(prompt if messages is None else messages_of(messages))
        most = service.facts.get("context_length")
        return JSONResponse({"count": len(ids), "max_model_len": most, "tokens": list(ids)})

    @app.post(DETOKENIZE, responses=answers(DETOKENIZE), openapi_extra=body(service, DETOKENIZE))
    async def detokenize(request: Request) -> Response:
        """Return the text of ids."""
        values = await read(request, DETOKENIZE)
        with service.line.enter(1):
            try:
                text = await service.engine.decode(values["tokens"])
            except Exception as error:
                told = as_api_error(error, request.scope["state"]["request_id"])
                told.param = "tokens" if told.status == 400 else None
                raise told from error
        return JSONResponse({"prompt": text})


def _models(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models", responses=answers("/v1/models"))
    async def models() -> Response:
        """List the model, with what it takes."""
        return JSONResponse({"object": "list", "data": [service.model()]})

    @app.get(
        "/v1/models/{name:path}", responses=answers("/v1/models/{name}"), openapi_extra=MODEL_NAME
    )
    async def model(request: Request) -> Response:
        """Describe the model."""
        service.check_model(request.path_params["name"])
        return JSONResponse(service.model())

    @app.get("/version", responses=answers("/version"))
    async def version() -> Response:
        """Return the version of FST."""
        return JSONResponse({"version": service.version})


def _state(app: FastAPI, service: Service) -> None:
    # Load balancers probe with HEAD, which FastAPI, unlike Starlette, does not answer by itself.
    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz", responses=answers("/healthz"))
    async def healthz() -> Response:
        """Say whether the engine lives."""
        return _state_response("ok" if service.alive else "dead")

    @app.head("/readyz", include_in_schema=False)
    @app.get("/readyz", responses=answers("/readyz"))
    async def readyz() -> Response:
        """Say whether the server takes requests."""
        ready = "stopping" if service.draining else "ready"
        return _state_response(ready if service.alive else "dead")

    @app.get("/health_check/", responses=answers("/health_check/"))
    async def health_check() -> Response:
        """Say "ok", as FST's predecessor did."""
        return JSONResponse("ok" if service.alive else "dead", 200 if service.alive else 503)

    @app.get("/metrics", responses=answers("/metrics"), response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Return the metrics in Prometheus' format."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)


def _documents(app: FastAPI) -> None:
    for path in PAGE:
        app.add_route(path, _page, methods=["GET"], include_in_schema=False)

    async def docs(_: Request) -> Response:
        return reference_page(app.openapi())

    app.add_route("/docs", docs, methods=["GET"], include_in_schema=False)


async def _page(request: Request) -> Response:
    return page_response(request.scope["path"])


async def _http_error(_: Request, error: Exception) -> Response:
    """Answer what the router refuses."""
    assert isinstance(error, HTTPException)
    message = "there is no such path" if error.status_code == 404 else error.detail
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code)
    return error_response(ApiError(error.status_code, message, code=code, headers=error.headers))


def _state_response(state: str) -> Response:
    status = 200 if state in {"ok", "ready"} else 503
    headers = {} if status == 200 else {"retry-after": "5"}
    return JSONResponse({"status": state}, status, headers=headers)
