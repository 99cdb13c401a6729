// The page of an application that gets a token with each request: it asks the project's data API with it.

import Link from "next/link";
import { headers } from "next/headers";
import { createClient } from "../../lib/bearer.js";

export default async function Page() {
  const user = (await headers()).get("x-user-id");
  const supabase = await createClient();
  const { data } = user ? await supabase.from("profiles").select("email") : { data: [] };
  return (
    <main>
      <h1>Bearer</h1>
      <p id="email">{data?.[0]?.email ?? "nobody"}</p>
      <p id="user">{user ?? "nobody"}</p>
      <Link href="/" prefetch={false}>The other page</Link>
    </main>
  );
}
