"""The pages: `/`, where one tries the service with a picture, and `/docs`, Swagger's view of the API.

Everything comes from this process; the content security policy forbids any other host.
"""

from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, FastAPI, Response
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

WEB = Path(__file__).parent / "web"
SWAGGER = Path(str(files("fastapi_offline") / "static"))

_POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE_POLICY = f"{_POLICY}; style-src 'self'; img-src 'self' blob:"
# Swagger's page sets styles on its elements and carries its icons in data: addresses.
DOCS_POLICY = f"{_POLICY}; style-src 'self' 'unsafe-inline'; img-src 'self' data:"

router = APIRouter(include_in_schema=False)


def _page(name: str, policy: str) -> Response:
    return FileResponse(WEB / name, headers={"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer"})


@router.get("/")
async def index() -> Response:
    """The page for trying the service."""
    return _page("index.html", PAGE_POLICY)


@router.get("/docs")
async def docs() -> Response:
    """The documentation of the API."""
    return _page("docs.html", DOCS_POLICY)


def install(app: FastAPI) -> None:
    """Add the pages and the files that they use."""
    app.include_router(router)
    app.mount("/web", StaticFiles(directory=WEB), name="web")
    app.mount("/swagger", StaticFiles(directory=SWAGGER), name="swagger")
