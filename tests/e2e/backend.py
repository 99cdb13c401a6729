"""The backend of the end-to-end tests: a FastAPI app that trusts nobody.

It verifies every Bearer token itself, with PyJWT against the provider's JWKS, and tells what it received.
Paths under /control are for the test alone; the gateway has no route to them.
"""

import asyncio
import os
from collections import deque

import jwt
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import StreamingResponse

AUTH_URL = os.environ["AUTH_URL"]  # as in http://127.0.0.1:8080/auth/v1

app = FastAPI()
keys = jwt.PyJWKClient(f"{AUTH_URL}/.well-known/jwks.json")
seen: deque[str] = deque(maxlen=1000)
upload = {"received": 0}
release = asyncio.Event()


@app.middleware("http")
async def remember(request: Request, call_next):
    seen.append(request.url.path)
    return await call_next(request)


def verified(request: Request) -> dict:
    """The claims of the Bearer token. One header, one token, one signature that holds."""
    values = request.headers.getlist("authorization")
    if len(values) != 1 or not values[0].startswith("Bearer "):
        raise HTTPException(418, f"expected one Bearer token, got {len(values)} headers")
    token = values[0].removeprefix("Bearer ")
    try:
        key = keys.get_signing_key_from_jwt(token).key
        return jwt.decode(token, key, algorithms=["ES256"], audience="authenticated", issuer=AUTH_URL)
    except jwt.PyJWTError as error:
        raise HTTPException(418, f"the token does not verify: {error}") from error


def received(request: Request) -> dict:
    """Everything as it came: repeated fields stay repeated."""
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw]
    return {"method": request.method, "path": request.scope["raw_path"].decode(), "query": request.url.query, "headers": headers}


@app.get("/health")
async def health(request: Request):
    return received(request)


@app.api_route("/api/echo", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
async def echo(request: Request, claims: dict = Depends(verified)):
    return received(request) | {"claims": claims}


@app.get("/api/admin/users")
async def users(request: Request, claims: dict = Depends(verified)):
    return received(request) | {"claims": claims}


@app.get("/api/events")
async def events(_claims: dict = Depends(verified)):
    async def two():
        yield "data: first\n\n"
        await release.wait()
        release.clear()
        yield "data: second\n\n"

    return StreamingResponse(two(), media_type="text/event-stream")


@app.post("/api/upload")
async def take(request: Request, _claims: dict = Depends(verified)):
    upload["received"] = 0
    async for chunk in request.stream():
        upload["received"] += len(chunk)
    return dict(upload)


@app.get("/control/seen")
async def control_seen():
    return list(seen)


@app.get("/control/upload")
async def control_upload():
    return upload


@app.post("/control/release")
async def control_release():
    release.set()
