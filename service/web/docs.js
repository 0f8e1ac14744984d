// Shows /openapi.json with Swagger UI; validatorUrl null keeps it from asking another host for a badge.
"use strict";
window.ui = SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
  tryItOutEnabled: true,
});
