// As Supabase's guide for Next.js has it: the session is in cookies.

import { cookies } from "next/headers";
import { createServerClient } from "@supabase/ssr";

export async function createClient() {
  const store = await cookies();
  return createServerClient(process.env.SUPABASE_URL, process.env.SUPABASE_PUBLISHABLE_KEY, {
    cookies: {
      getAll: () => store.getAll(),
      setAll(changes) {
        try {
          changes.forEach(({ name, value, options }) => store.set(name, value, options));
        } catch {
          // A server component cannot set cookies; the proxy has done it.
        }
      },
    },
  });
}
