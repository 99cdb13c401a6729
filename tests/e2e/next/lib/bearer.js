// For an application that gets no cookies: the gateway brings the token.

import { headers } from "next/headers";
import { createClient as create } from "@supabase/supabase-js";

export async function createClient() {
  const authorization = (await headers()).get("authorization");
  return create(process.env.SUPABASE_URL, process.env.SUPABASE_PUBLISHABLE_KEY, {
    global: { headers: authorization ? { Authorization: authorization } : {} },
    accessToken: async () => authorization?.replace(/^Bearer /, "") ?? null,
  });
}
