// What arrives here, and what the library makes of it.

import { createClient } from "../../../lib/server.js";

export async function GET(request) {
  const { data } = await (await createClient()).auth.getClaims();
  return Response.json({ email: data?.claims.email ?? null, headers: [...request.headers] });
}
