// The page of an application that keeps the session in cookies, or lets the gateway do it.

import Link from "next/link";
import { createClient } from "../lib/server.js";
import { greet } from "./actions.js";
import { Visitor } from "./visitor.jsx";

export default async function Page() {
  const supabase = await createClient();
  const { data } = await supabase.auth.getClaims();
  return (
    <main>
      <h1>Cookies</h1>
      <p id="email">{data?.claims.email ?? "nobody"}</p>
      <Visitor url={process.env.SUPABASE_URL} apiKey={process.env.SUPABASE_PUBLISHABLE_KEY} />
      <form action={greet}>
        <button>Greet</button>
      </form>
      <Link href="/bearer" prefetch={false}>The other page</Link>
    </main>
  );
}
