// The certified OpenID provider `oidc-provider` as our tests ask it: set up, not changed, where it differs from Entra ID by
// choice. Its sign-in, consent and device pages are the ones it brings for development.
//
// Each line on stdin is JSON and makes one more provider: `number`, `tenant` (for the paths), `clients` (an id for each kind),
// `secret`, `certificate` (PEM), `scopes`. Each line on stdout is JSON too: once that it is ready, then of the provider with
// `provider` as number its issuer, or an answer of its token endpoint. All end when stdin does.

import { X509Certificate, createHash, generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

// What it says of its own to whoever sets it up has been read.
console.info = () => {};
console.warn = () => {};
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

// `import` does not look into NODE_PATH, `require` does.
async function library() {
  let file;
  try {
    file = createRequire(import.meta.url).resolve('oidc-provider');
  } catch {
    say({ missing: 'oidc-provider' });
    process.exit();
  }
  return import(pathToFileURL(file));
}

const { Provider, errors } = await library();

const DEVICE = 'urn:ietf:params:oauth:grant-type:device_code';

const confidential = {
  grant_types: ['client_credentials', 'refresh_token', DEVICE],
  redirect_uris: [],
  response_types: [],
};

function registrations({ clients, scopes, secret }, certificate) {
  const signing = {
    ...confidential,
    token_endpoint_auth_method: 'private_key_jwt',
    jwks: { keys: [certificate.publicKey.export({ format: 'jwk' })] },
  };
  return [
    {
      ...confidential,
      client_id: clients.secret,
      client_secret: secret,
      token_endpoint_auth_method: 'client_secret_post',
      scope: scopes.application,
    },
    { ...signing, client_id: clients.ps256, token_endpoint_auth_signing_alg: 'PS256' },
    { ...signing, client_id: clients.rs256, token_endpoint_auth_signing_alg: 'RS256' },
    {
      client_id: clients.public,
      application_type: 'native',
      token_endpoint_auth_method: 'none',
      grant_types: ['authorization_code', 'refresh_token', DEVICE],
      redirect_uris: ['http://localhost'],
      response_types: ['code'],
    },
  ];
}

function configured(setup) {
  const { scopes, tenant } = setup;
  const certificate = new X509Certificate(setup.certificate);
  const thumbprint = (algorithm) => createHash(algorithm).update(certificate.raw).digest('base64url');
  const path = (name) => `/${tenant}/oauth2/v2.0/${name}`;
  return {
    clients: registrations(setup, certificate),
    scopes: [...new Set([scopes.application, ...scopes.user.split(' ')])],
    routes: { token: path('token'), device_authorization: path('devicecode'), authorization: path('authorize') },
    features: {
      clientCredentials: { enabled: true },
      deviceFlow: { enabled: true },
      devInteractions: { enabled: true },
    },
    rotateRefreshToken: true,
    ttl: {
      AccessToken: 3600,
      AuthorizationCode: 60,
      ClientCredentials: 3600,
      DeviceCode: 600,
      Grant: 3600,
      IdToken: 3600,
      Interaction: 600,
      RefreshToken: 3600,
      Session: 3600,
    },
    claims: { profile: ['preferred_username'] },
    // As Entra ID does: the id token itself says who signed in.
    conformIdTokenClaims: false,
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, preferred_username: id }) }),
    // As Entra ID does: it finds the certificate by its thumbprint, which the provider leaves alone.
    assertJwtClientAuthClaimsAndHeader(_, claims, header) {
      const [named, right] =
        header.alg === 'PS256' ? [header['x5t#S256'], thumbprint('sha256')] : [header.x5t, thumbprint('sha1')];
      if (named !== right) {
        throw new errors.InvalidClientAuth(`no certificate has the thumbprint ${named}`);
      }
    },
    cookies: { keys: ['a test'] },
    jwks: { keys: [generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'jwk' })] },
    clientDefaults: { id_token_signed_response_alg: 'ES256' },
  };
}

function start(setup) {
  const server = createServer();
  server.listen(0, '127.0.0.1', () => {
    const issuer = `http://127.0.0.1:${server.address().port}`;
    const configuration = configured(setup);
    const provider = new Provider(issuer, configuration);
    provider.use(async (ctx, next) => {
      // OpenID Connect Core section 11 wants the user asked, or another reason to give offline access; Entra ID has others.
      if (ctx.path === configuration.routes.authorization) {
        ctx.query = { ...ctx.query, prompt: 'consent' };
      }
      await next();
      // It leaves the pace out, and 5 s (RFC 8628 section 3.2) are long for a test.
      if (ctx.path === configuration.routes.device_authorization && ctx.status === 200) {
        ctx.body.interval = 1;
      }
    });
    const answer = (ctx, error) => {
      const { client_id: client, grant_type: grant, client_assertion: assertion } = ctx.oidc?.params ?? {};
      say({ provider: setup.number, client, grant, assertion, error: error?.error, detail: error?.error_detail });
    };
    provider.on('grant.success', (ctx) => answer(ctx));
    provider.on('grant.error', answer);
    server.on('request', provider.callback());
    say({ provider: setup.number, issuer });
  });
}

const setups = createInterface({ input: process.stdin });
setups.on('line', (line) => start(JSON.parse(line)));
setups.on('close', () => process.exit());
say({ ready: true });
