// Certificates as an operator gets them: PEM files, made by openssl, signed by an authority that only the tests trust.

import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";

/** An authority with a folder of its own: `{ ca, folder, issue, remove }`; `ca` is the file that clients trust. */
export function makeAuthority() {
  const folder = mkdtempSync(path.join(tmpdir(), "tollhouse-e2e-"));
  const inside = (name) => path.join(folder, name);
  // None of the extensions that a distribution adds by itself.
  writeFileSync(inside("openssl.cnf"), "[req]\ndistinguished_name = none\n[none]\n");
  const certificate = (name, subject, extensions, more = []) => {
    const [cert, key] = [inside(`${name}.pem`), inside(`${name}-key.pem`)];
    execFileSync("openssl", ["req", "-x509", "-config", inside("openssl.cnf"), "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-sha256",
      "-days", "300", "-subj", `/CN=${subject}`, "-keyout", key, "-out", cert, ...extensions.flatMap((text) => ["-addext", text]), ...more], { stdio: "pipe" });
    return { cert, key };
  };
  const authority = certificate("ca", "Tollhouse tests", ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign", "subjectKeyIdentifier=hash"]);
  return {
    ca: authority.cert,
    folder,
    /** A pair of files for these names, each `DNS:…` or `IP:…`; the first names the subject. */
    issue(file, ...names) {
      const extensions = ["basicConstraints=critical,CA:FALSE", "keyUsage=critical,digitalSignature", "extendedKeyUsage=serverAuth",
        "subjectKeyIdentifier=hash", "authorityKeyIdentifier=keyid", `subjectAltName=${names.join(",")}`];
      return certificate(file, names[0].replace(/^\w+:/, ""), extensions, ["-CA", authority.cert, "-CAkey", authority.key]);
    },
    remove() {
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
