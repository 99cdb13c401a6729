// The application renews the session by itself, as it does after it has changed something of the user.

import { createClient } from "../../../lib/server.js";

export async function POST() {
  const { data, error } = await (await createClient()).auth.refreshSession();
  return Response.json({ email: data.user?.email ?? null, error: error?.code ?? null });
}
