import path from "node:path";
import { fileURLToPath } from "node:url";

export default {
  // The packages are those of the tests.
  turbopack: { root: path.dirname(path.dirname(fileURLToPath(import.meta.url))) },
};
