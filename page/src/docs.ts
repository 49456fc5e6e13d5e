// Starts the viewer of the endpoints. A file of its own: the policy of the page allows no script within it.

declare const SwaggerUIBundle: (options: object) => unknown;

SwaggerUIBundle({ url: "openapi.json", dom_id: "#endpoints", deepLinking: true, validatorUrl: null });
