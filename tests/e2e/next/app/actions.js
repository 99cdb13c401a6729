"use server";

import { cookies } from "next/headers";
import { createClient } from "../lib/server.js";

/** Writes something on the server in the name of whoever asks. */
export async function greet() {
  const { data } = await (await createClient()).auth.getClaims();
  (await cookies()).set("greeted", data?.claims.email ?? "nobody");
}
