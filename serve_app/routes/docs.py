"""GET /docs: Swagger UI, served from this process alone."""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, Response

from registries.contracts.errors import NotFound

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <title>Parley API</title>
  <link rel="stylesheet" href="/docs/assets/swagger-ui.css">
</head>
<body>
  <div id="swagger-ui"></div>
  <script src="/docs/assets/swagger-ui-bundle.js"></script>
  <script src="/docs/assets/start.js"></script>
</body>
</html>
"""
_START = """SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  persistAuthorization: true,
  presets: [SwaggerUIBundle.presets.apis]
});
"""
_MEDIA_TYPES: Mapping[str, str] = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}
# Swagger UI writes style attributes and draws its icons from data: URLs; scripts stay our own files.
_HEADERS: Mapping[str, str] = {
    "content-security-policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; frame-ancestors 'none'"
}


def docs_routes() -> APIRouter:
    """The page and its assets; the assets come from the package fastapi-offline, so no network is needed."""
    router = APIRouter(include_in_schema=False)

    @router.get("/docs")
    async def docs() -> HTMLResponse:
        return HTMLResponse(_PAGE, headers=dict(_HEADERS))

    @router.get("/docs/assets/{name}")
    async def asset(name: str) -> Response:
        if name == "start.js":
            return Response(_START, media_type="text/javascript")
        if name not in _MEDIA_TYPES:
            raise NotFound(f"unknown asset {name!r}", param="name")
        content = await run_in_threadpool(_read_asset, name)
        return Response(content, media_type=_MEDIA_TYPES[name], headers={"cache-control": "max-age=86400"})

    return router


def _read_asset(name: str) -> bytes:
    return (importlib.resources.files("fastapi_offline") / "static" / name).read_bytes()
