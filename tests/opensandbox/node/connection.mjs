// Where the server is, from the environment, and sandboxes that tests take away again.
import assert from "node:assert/strict";
import { after } from "node:test";
import { Sandbox, SandboxApiException, SandboxManager } from "@alibaba-group/opensandbox";

export const connection = {
  domain: process.env.TEST_DOMAIN,
  apiKey: process.env.TEST_API_KEY,
  requestTimeoutSeconds: 60,
};

const made = new Set();

export async function create(options = {}) {
  const image = options.snapshotId ? {} : { image: "python:3.11" };
  const sandbox = await Sandbox.create({ connectionConfig: connection, ...image, ...options });
  made.add(sandbox);
  return sandbox;
}

export function manage() {
  return SandboxManager.create({ connectionConfig: connection });
}

after(async () => {
  for (const sandbox of made) {
    try {
      await sandbox.kill();
    } catch (error) {
      assert.equal(error.statusCode, 404, String(error));
    }
    await sandbox.close();
  }
});

// Checks that a call fails with that status, a code and the request's id.
export async function refused(status, call, code) {
  let error;
  try {
    await call();
  } catch (caught) {
    error = caught;
  }
  assert.ok(error instanceof SandboxApiException, `not refused: ${error}`);
  assert.equal(error.statusCode, status, String(error));
  assert.ok(error.error.code && error.message, String(error));
  if (code) assert.equal(error.error.code, code);
  return error;
}

export function lines(execution, stream = "stdout") {
  return execution.logs[stream].map((message) => message.text);
}

export async function until(condition, what) {
  const end = Date.now() + 30_000;
  for (;;) {
    const value = await condition();
    if (value) return value;
    assert.ok(Date.now() < end, `${what}: not within 30 s`);
    await new Promise((resume) => setTimeout(resume, 20));
  }
}
