// The description, to read and to try. Whoever has logged in at `/` need not log in again.

const token = localStorage.getItem("token");

const page = SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#docs",
  deepLinking: true,
  docExpansion: "none",
  validatorUrl: null,
  tryItOutEnabled: true,
  onComplete: () => token && page.preauthorizeApiKey("token", token),
});
window.page = page;
