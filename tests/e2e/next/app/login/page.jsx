// A login page without a script: its forms and links go to the gateway.

export default async function Page({ searchParams }) {
  const { error } = await searchParams;
  return (
    <main>
      <h1>Log in</h1>
      {error && <p role="alert">{error}</p>}
      <form method="post" action="/.auth/login">
        <label>Email <input name="email" type="email" autoComplete="username" /></label>
        <label>Password <input name="password" type="password" autoComplete="current-password" /></label>
        <input type="hidden" name="return_to" value="/bearer" />
        <button>Log in</button>
      </form>
      <a href="/.auth/login?provider=github&return_to=/bearer">Log in with GitHub</a>
    </main>
  );
}
