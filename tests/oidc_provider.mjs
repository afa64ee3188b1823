// A real OAuth 2.0 and OpenID Connect server, oidc-provider, that gives JWTs to one client by its secret.
// Its configuration is a JSON object on the first line of standard input; every further line is answered by a line.

import crypto from "node:crypto";
import { readFileSync } from "node:fs";
import https from "node:https";
import readline from "node:readline";
import { Provider } from "oidc-provider";

const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const config = JSON.parse((await lines.next()).value);
const signing = (name) => ({
  ...crypto.generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export({ format: "jwk" }),
  kid: name,
  alg: "ES256",
  use: "sig",
});

function provide(issuer, keyName) {
  return new Provider(issuer, {
    jwks: { keys: [signing(keyName)] },
    clients: [
      {
        client_id: config.client_id,
        client_secret: config.client_secret,
        grant_types: ["client_credentials"],
        response_types: [],
        redirect_uris: [],
        id_token_signed_response_alg: "ES256",
        scope: config.scope,
      },
    ],
    scopes: [config.scope],
    clientAuthMethods: ["client_secret_basic"],
    extraTokenClaims: () => config.claims,
    ttl: { ClientCredentials: config.lifetime_s },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: () => ({
          scope: config.scope,
          audience: config.audience,
          accessTokenFormat: "jwt",
          jwt: { sign: { alg: "ES256" } },
        }),
      },
    },
  }).callback();
}

let handle;
const tls = { cert: readFileSync(config.certificate), key: readFileSync(config.key) };
const server = https.createServer(tls, (request, response) => handle(request, response));
server.listen(0, "127.0.0.1", async () => {
  const issuer = `https://127.0.0.1:${server.address().port}`;
  handle = provide(issuer, "first");
  console.log(issuer);
  for await (const line of lines) {
    // The name of a new key, which replaces the old one.
    handle = provide(issuer, line);
    console.log(line);
  }
  process.exit(0);
});
