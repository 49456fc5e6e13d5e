import js from "@eslint/js";
import typescript from "typescript-eslint";

export default typescript.config(
  { ignores: ["node_modules"] },
  js.configs.recommended,
  ...typescript.configs.strictTypeChecked,
  {
    files: ["src/**/*.{ts,tsx}", "test/**/*.ts"],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
      "no-restricted-properties": [
        "error",
        { property: "innerHTML", message: "ids are hostile text: text nodes only" },
        { property: "outerHTML", message: "ids are hostile text: text nodes only" },
        { property: "insertAdjacentHTML", message: "ids are hostile text: text nodes only" },
      ],
      "no-restricted-syntax": [
        "error",
        { selector: "JSXAttribute[name.name='dangerouslySetInnerHTML']", message: "ids are hostile text: text nodes only" },
      ],
    },
  },
  { files: ["*.mjs"], ...typescript.configs.disableTypeChecked },
);
