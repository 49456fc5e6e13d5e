import { createHash } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import { join, relative } from "node:path";
import { defineConfig } from "vite";

const root = import.meta.dirname;

// The built files say which sources they are of, so that a test without Node can compare both.
function sourcesHash() {
  const sources = readdirSync(join(root, "src"), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
  const names = [...sources, join(root, "index.html"), join(root, "package-lock.json"), join(root, "vite.config.mjs")];
  const digest = createHash("sha256");
  for (const name of names.map((path) => relative(root, path)).sort()) {
    digest.update(`${name}\0`);
    digest.update(readFileSync(join(root, name)));
    digest.update("\0");
  }
  return digest.digest("hex");
}

export default defineConfig({
  base: "./",
  plugins: [
    {
      name: "sources-hash",
      generateBundle() {
        this.emitFile({ type: "asset", fileName: "sources.sha256", source: `${sourcesHash()}\n` });
      },
    },
  ],
  build: {
    outDir: "../lifelong/online/serving/page",
    emptyOutDir: true,
    modulePreload: false,
    assetsInlineLimit: 0,
    rollupOptions: {
      input: { page: join(root, "index.html"), docs: join(root, "src/docs.ts") },
      output: { entryFileNames: "page/[name].js", assetFileNames: (asset) =>
        asset.names?.[0]?.endsWith(".css") ? "page/page.css" : "[name][extname]" },
    },
  },
  test: { include: ["test/**/*.test.ts"] },
});
