"use client";

// What code in the browser knows: by the library, and by the gateway.

import { useEffect, useState } from "react";
import { createBrowserClient } from "@supabase/ssr";

export function Visitor({ url, apiKey }) {
  const [known, setKnown] = useState({});
  useEffect(() => {
    (async () => {
      const { data } = await createBrowserClient(url, apiKey).auth.getSession();
      const view = await fetch("/.auth/session");
      const byGateway = view.ok ? (await view.json()).user.email : "nobody";
      setKnown({ byLibrary: data.session?.user?.email ?? "nobody", byGateway });
    })();
  }, [url, apiKey]);
  return (
    <dl>
      <dt>The library says</dt>
      <dd id="by-library">{known.byLibrary}</dd>
      <dt>The gateway says</dt>
      <dd id="by-gateway">{known.byGateway}</dd>
    </dl>
  );
}
