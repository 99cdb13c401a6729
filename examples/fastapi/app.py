"""A small backend behind Tollhouse. It holds no session code and no secret.

Tollhouse removes every `X-User-Id` that a client sends and sets its own, so the header can be believed
as long as nobody but Tollhouse can reach this port: listen on loopback or on a private network.
"""

import os
from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException

app = FastAPI(title="Behind Tollhouse")


class User:
    """Whoever Tollhouse vouches for."""

    def __init__(
        self,
        x_user_id: Annotated[str, Header()],
        x_user_role: Annotated[str, Header()] = "",
    ):
        self.id = x_user_id
        self.roles = x_user_role.split(",") if x_user_role else []


@app.get("/health")
async def health():
    return {"ok": True}


@app.get("/api/me")
async def me(user: Annotated[User, Depends()]):
    return {"user_id": user.id, "roles": user.roles}


@app.get("/api/admin/users")
async def users():
    # The gateway asks for the role `admin` on /api/admin/*; no code for it here.
    return [{"name": "Ada"}, {"name": "Grace"}]


# A backend that wants proof, and not only the word of the network, verifies the Bearer token that comes with
# each request. It needs `pip install "PyJWT[crypto]"` and the project's address; remove this part if you do not.
if SUPABASE_URL := os.environ.get("VERIFY_WITH_SUPABASE_URL"):
    import jwt

    ISSUER = f"{SUPABASE_URL}/auth/v1"
    KEYS = jwt.PyJWKClient(f"{ISSUER}/.well-known/jwks.json")

    def claims(authorization: Annotated[str, Header()]) -> dict:
        token = authorization.removeprefix("Bearer ")
        try:
            key = KEYS.get_signing_key_from_jwt(token).key
            return jwt.decode(token, key, algorithms=["ES256", "RS256"], audience="authenticated", issuer=ISSUER)
        except jwt.PyJWTError as error:
            raise HTTPException(401, "the token does not verify") from error

    @app.get("/api/claims")
    def show_claims(verified: Annotated[dict, Depends(claims)]):
        return verified
