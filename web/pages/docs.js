// Swagger UI for the OpenAPI document, authenticated with the access token of a login at `/`.

const accessToken = localStorage.getItem("token");

const page = SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#docs",
  deepLinking: true,
  docExpansion: "none",
  validatorUrl: null,
  tryItOutEnabled: true,
  onComplete: () => accessToken && page.preauthorizeApiKey("token", accessToken),
});
window.page = page;
