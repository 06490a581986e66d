// Every public method of the package has a test: a release with a new one fails here.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import * as client from "@alibaba-group/opensandbox";
import { create } from "./connection.mjs";

// What adapters have for themselves, none of it in the interfaces that the package declares.
const INNER = new Set([
  "_delete", "_get", "_priv", "_run", "buildRunInSessionStreamSpec", "buildRunStreamSpec",
  "consumeExecutionStream", "credentialVaultUrl", "downloadStream", "fetchSandboxEndpoint",
  "jsonRequest", "mapApiFileInfo", "mapSandboxInfo", "mapSnapshotInfo", "parseIsoDate",
  "parseOptionalIsoDate", "readErrorResponse", "requestJson", "runInSessionStream",
  "streamExecution", "uploadFile",
]);
// What the methods of Sandbox and SandboxManager call, tested through them.
const BEHIND = {
  Sandboxes: [
    "createSandbox", "createSnapshot", "deleteSandbox", "deleteSnapshot", "getSandbox",
    "getSandboxEndpoint", "getSignedEndpoint", "getSnapshot", "invalidateEndpointCache",
    "listSandboxes", "listSnapshots", "patchSandboxMetadata", "pauseSandbox",
    "renewSandboxExpiration", "resumeSandbox",
  ],
  Egress: ["deleteRules", "getPolicy", "patchRules"],
};
const TABLE = {
  Sandbox: {
    close: "connect", connect: "connect", create: "refusals", deleteEgressRules: "egress policies",
    getEgressPolicy: "egress policies", getEndpoint: "endpoints", getEndpointUrl: "endpoints",
    getInfo: "create and look", getMetrics: "create and look", getSignedEndpoint: "endpoints",
    isHealthy: "create and look", kill: "kill", patchEgressRules: "egress policies",
    patchMetadata: "patch metadata", pause: "pause and resume", renew: "renew",
    resume: "pause and resume", waitUntilReady: "kill",
  },
  SandboxManager: {
    close: "manager", create: null, createSnapshot: "snapshots", deleteSnapshot: "snapshots",
    getSandboxInfo: "manager", getSnapshot: "snapshots", killSandbox: "manager",
    listSandboxInfos: "manager", listSnapshots: "snapshots", patchSandboxMetadata: "manager",
    pauseSandbox: "manager", renewSandbox: "manager", resumeSandbox: "manager",
  },
  commands: {
    createSession: "sessions", deleteSession: "sessions",
    getBackgroundCommandLogs: "background", getCommandStatus: "background",
    interrupt: "interrupt", run: "run", runInSession: "sessions", runStream: "run stream",
  },
  files: {
    createDirectories: "find", deleteDirectories: "find", deleteFiles: "change",
    getFileInfo: "write and read", listDirectory: "find", moveFiles: "change",
    readBytes: "write and read", readBytesStream: "write and read", readFile: "write and read",
    replaceContents: "change", replaceContentsDetailed: "change", search: "find",
    setPermissions: "change", writeFiles: "write and read",
  },
  health: { ping: "create and look" },
  metrics: { getMetrics: "create and look" },
  isolation: Object.fromEntries(
    ["attach", "capabilities", "create", "list", "runOnce", "withSession"].map((name) => [name, "what is not built is said"]),
  ),
  credentialVault: {
    ...Object.fromEntries(
      ["create", "delete", "get", "getBinding", "getCredential", "listBindings", "listCredentials", "patch"].map(
        (name) => [name, "what is not built is said"],
      ),
    ),
    ...Object.fromEntries(BEHIND.Egress.map((name) => [name, null])),
  },
  sandboxes: Object.fromEntries(BEHIND.Sandboxes.map((name) => [name, null])),
};
// Classes that ask a server nothing.
const SILENT = /Exception$|Error$|^ConnectionConfig$|Factory$|^ExecutionEventDispatcher$/;

const sources = ["lifecycle", "execd"].map((name) =>
  readFileSync(new URL(`./${name}.test.mjs`, import.meta.url), "utf8"),
);

const own = (object) => Object.getOwnPropertyNames(object ?? {});
const methods = (kind) =>
  new Set(
    [...own(kind.prototype), ...own(kind).filter((name) => typeof kind[name] === "function")].filter(
      (name) => name !== "constructor" && !INNER.has(name),
    ),
  );

function covered(kind, table, found) {
  assert.deepEqual([...found].sort(), Object.keys(table).sort(), kind);
  for (const [method, title] of Object.entries(table)) {
    if (title === null) continue;
    const bodies = sources.flatMap((text) => text.split(/^test\(/m)).filter((text) => text.startsWith(`"${title}"`));
    assert.equal(bodies.length, 1, `${kind}.${method}: no test "${title}"`);
    assert.match(bodies[0], new RegExp(`\\b${method}\\(`), `${kind}.${method} in "${title}"`);
  }
}

test("classes", () => {
  const kinds = Object.entries(client).filter(
    ([name, value]) => typeof value === "function" && own(value.prototype).length > 1 && !SILENT.test(name),
  );
  assert.deepEqual(kinds.map(([name]) => name).sort(), ["Sandbox", "SandboxManager"]);
  for (const [name, kind] of kinds) covered(name, TABLE[name], methods(kind));
});

test("services of a sandbox", async () => {
  const sandbox = await create();
  const services = own(sandbox).filter((name) => typeof sandbox[name] === "object" && own(Object.getPrototypeOf(sandbox[name])).length > 1);
  const known = Object.keys(TABLE).filter((name) => /^[a-z]/.test(name));
  assert.deepEqual(services.filter((name) => !["connectionConfig", "adapterFactory", "egress"].includes(name)).sort(), known.sort());
  for (const name of known) covered(name, TABLE[name], methods(sandbox[name].constructor));
});
