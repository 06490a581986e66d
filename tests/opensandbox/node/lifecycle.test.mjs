// Sandboxes and their manager with the official client for JavaScript.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test } from "node:test";
import { ConnectionConfig, Sandbox, SandboxReadyTimeoutException } from "@alibaba-group/opensandbox";
import { connection, create, lines, manage, refused, until } from "./connection.mjs";

const near = (date, millis) => Math.abs(date.getTime() - millis) < 30_000;

test("create and look", async () => {
  const sandbox = await create({
    metadata: { team: "blue" },
    timeoutSeconds: 300,
    env: { GREETING: "été" },
    resource: { cpu: "1", memory: "512Mi" },
    entrypoint: ["bash", "-c", "sleep 1000"],
  });
  const info = await sandbox.getInfo();
  assert.equal(info.id, sandbox.id);
  assert.equal(info.status.state, "Running");
  assert.equal(info.image.uri, "python:3.11");
  assert.deepEqual(info.entrypoint, ["bash", "-c", "sleep 1000"]);
  assert.deepEqual(info.metadata, { team: "blue" });
  assert.ok(near(info.createdAt, Date.now()) && near(info.expiresAt, Date.now() + 300_000));
  assert.equal(await sandbox.isHealthy(), true);
  assert.equal(await sandbox.health.ping(), true);
  assert.deepEqual(lines(await sandbox.commands.run("echo $GREETING")), ["été"]);
  for (const metrics of [await sandbox.getMetrics(), await sandbox.metrics.getMetrics()]) {
    assert.equal(metrics.cpuCount, 1);
    assert.equal(metrics.memoryTotalMiB, 512);
    assert.ok(metrics.memoryUsedMiB > 0 && metrics.memoryUsedMiB < 512);
    assert.ok(Math.abs(metrics.timestamp - Date.now()) < 60_000);
  }
});

test("no end", async () => {
  const sandbox = await create({ timeoutSeconds: null });
  assert.ok((await sandbox.getInfo()).expiresAt.getTime() > Date.now() + 3_600_000, "the longest there is");
});

test("refusals", async () => {
  const wrong = { ...connection, apiKey: "cn_live_wrong" };
  await refused(401, () => Sandbox.create({ connectionConfig: wrong, image: "python:3.11" }), "INVALID_API_KEY");
  await assert.rejects(create({ image: "registry.example.com/some/thing:1" }), (error) => error.statusCode >= 400 && error.statusCode < 500);
  await assert.rejects(create({ timeoutSeconds: 10 }), (error) => error.statusCode === 400 || error.statusCode === 422);
  const volume = { name: "v", host: { path: "/srv" }, mountPath: "/mnt/v" };
  await refused(501, () => create({ volumes: [volume] }));
});

test("connect", async () => {
  const sandbox = await create();
  await sandbox.files.writeFiles([{ path: "/workspace/kept", data: "1" }]);
  const again = await Sandbox.connect({ connectionConfig: connection, sandboxId: sandbox.id });
  assert.equal(await again.files.readFile("/workspace/kept"), "1");
  await again.close();
  assert.equal(await sandbox.isHealthy(), true);
  await refused(404, () => Sandbox.connect({ connectionConfig: connection, sandboxId: "no-such-sandbox" }));
});

test("kill", async () => {
  const sandbox = await create();
  await sandbox.waitUntilReady({ readyTimeoutSeconds: 10, pollingIntervalMillis: 20 });
  await sandbox.kill();
  assert.equal(await sandbox.isHealthy(), false);
  assert.equal((await sandbox.getInfo()).status.state, "Terminated");
  await sandbox.kill();
  const never = { readyTimeoutSeconds: 0.3, pollingIntervalMillis: 50 };
  await assert.rejects(sandbox.waitUntilReady(never), SandboxReadyTimeoutException);
});

test("renew", async () => {
  const sandbox = await create({ timeoutSeconds: 300 });
  const answer = await sandbox.renew(2400);
  assert.ok(near(answer.expiresAt, Date.now() + 2_400_000));
  assert.ok(near((await sandbox.getInfo()).expiresAt, Date.now() + 2_400_000));
});

test("patch metadata", async () => {
  const sandbox = await create({ metadata: { a: "1", b: "2" } });
  const info = await sandbox.patchMetadata({ a: null, b: "3", c: "4" });
  assert.deepEqual(info.metadata, { b: "3", c: "4" });
  assert.deepEqual((await sandbox.getInfo()).metadata, { b: "3", c: "4" });
});

test("endpoints", async () => {
  const sandbox = await create();
  const endpoint = await sandbox.getEndpoint(44772);
  assert.ok(!endpoint.endpoint.includes("://") && endpoint.endpoint.endsWith("/44772"));
  const url = await sandbox.getEndpointUrl(44772);
  assert.equal(url, `http://${endpoint.endpoint}`);
  const answer = await fetch(`${url}/ping`, { headers: endpoint.headers ?? {} });
  assert.equal(answer.status, 200);
  const signed = await sandbox.getSignedEndpoint(8000, Math.floor(Date.now() / 1000) + 60);
  assert.ok(!signed.endpoint.includes("://") && signed.endpoint !== (await sandbox.getEndpoint(8000)).endpoint);
  await refused(400, () => sandbox.getSignedEndpoint(8000, 1));
});

test("a domain with a slash, a scheme, a version", async () => {
  const sandbox = await create();
  for (const domain of [`http://${connection.domain}/`, `${connection.domain}/v1`]) {
    const config = new ConnectionConfig({ ...connection, domain });
    const again = await Sandbox.connect({ connectionConfig: config, sandboxId: sandbox.id });
    assert.deepEqual(lines(await again.commands.run("echo here")), ["here"]);
    await again.close();
  }
});

test("through the server's proxy", async () => {
  const sandbox = await create({ connectionConfig: { ...connection, useServerProxy: true } });
  assert.deepEqual(lines(await sandbox.commands.run("echo 1")), ["1"]);
  await sandbox.files.writeFiles([{ path: "/workspace/a", data: "b" }]);
  assert.equal(await sandbox.files.readFile("/workspace/a"), "b");
});

test("pause and resume", async () => {
  const sandbox = await create();
  const run = await sandbox.commands.run("sleep 1000", { background: true });
  await sandbox.pause();
  await until(async () => (await sandbox.getInfo()).status.state === "Paused", "paused");
  await refused(409, () => sandbox.pause());
  const again = await sandbox.resume();
  assert.equal((await again.getInfo()).status.state, "Running");
  assert.equal((await again.commands.getCommandStatus(run.id)).running, true, "frozen, not ended");
  await again.pause();
  await until(async () => (await again.getInfo()).status.state === "Paused", "paused");
  const third = await Sandbox.resume({ connectionConfig: connection, sandboxId: sandbox.id });
  assert.equal(await third.isHealthy(), true);
  await third.close();
});

test("egress policies", async () => {
  const allow = (target) => ({ action: "allow", target });
  const sandbox = await create({
    networkPolicy: { defaultAction: "deny", egress: [allow("a.example.com"), allow("b.example.com")] },
  });
  assert.deepEqual(await sandbox.getEgressPolicy(), {
    defaultAction: "deny",
    egress: [allow("a.example.com"), allow("b.example.com")],
  });
  await sandbox.patchEgressRules([{ action: "deny", target: "a.example.com" }]);
  const patched = await sandbox.getEgressPolicy();
  assert.equal(patched.defaultAction, "deny");
  assert.equal(patched.egress.find((rule) => rule.target === "a.example.com").action, "deny");
  await sandbox.deleteEgressRules(["a.example.com", "never.example.com"]);
  assert.deepEqual((await sandbox.getEgressPolicy()).egress, [allow("b.example.com")]);
});

test("manager", async () => {
  const manager = manage();
  const mark = randomUUID();
  const made = [await create({ metadata: { mark, n: "1" } }), await create({ metadata: { mark, n: "2" } })];
  const all = await manager.listSandboxInfos({ metadata: { mark } });
  assert.deepEqual(new Set(all.items.map((info) => info.id)), new Set(made.map((sandbox) => sandbox.id)));
  const one = await manager.listSandboxInfos({ metadata: { mark, n: "2" }, states: ["Running"] });
  assert.deepEqual(one.items.map((info) => info.id), [made[1].id]);
  const page = await manager.listSandboxInfos({ metadata: { mark }, page: 1, pageSize: 1 });
  assert.equal(page.items.length, 1);
  assert.deepEqual(page.pagination, { page: 1, pageSize: 1, totalItems: 2, totalPages: 2, hasNextPage: true });

  const id = made[0].id;
  assert.equal((await manager.getSandboxInfo(id)).metadata.n, "1");
  assert.equal((await manager.patchSandboxMetadata(id, { n: "7" })).metadata.n, "7");
  await manager.renewSandbox(id, 2400);
  assert.ok(near((await manager.getSandboxInfo(id)).expiresAt, Date.now() + 2_400_000));
  await manager.pauseSandbox(id);
  await until(async () => (await manager.getSandboxInfo(id)).status.state === "Paused", "paused");
  await manager.resumeSandbox(id);
  await until(async () => (await manager.getSandboxInfo(id)).status.state === "Running", "running");
  await manager.killSandbox(id);
  assert.equal(await made[0].isHealthy(), false);
  await refused(404, () => manager.killSandbox("no-such-sandbox"));
  await refused(404, () => manager.getSandboxInfo("no-such-sandbox"));
  await manager.close();
});

test("snapshots", async () => {
  const manager = manage();
  const sandbox = await create();
  await sandbox.files.writeFiles([{ path: "/workspace/kept", data: "before" }]);
  const taken = await manager.createSnapshot(sandbox.id, { name: "first" });
  assert.deepEqual([taken.sandboxId, taken.name], [sandbox.id, "first"]);
  const ready = await until(async () => {
    const info = await manager.getSnapshot(taken.id);
    assert.notEqual(info.status.state, "Failed");
    return info.status.state === "Ready" && info;
  }, "ready");
  assert.ok(ready.createdAt instanceof Date);
  const listed = await manager.listSnapshots({ sandboxId: sandbox.id });
  assert.deepEqual(listed.items.map((info) => info.id), [taken.id]);
  await sandbox.files.writeFiles([{ path: "/workspace/kept", data: "after" }]);
  const made = await create({ snapshotId: taken.id });
  assert.equal(await made.files.readFile("/workspace/kept"), "before");
  await manager.deleteSnapshot(taken.id);
  await refused(404, () => manager.getSnapshot(taken.id));
  await manager.close();
});

test("what is not built is said", async () => {
  const { credentialVault: vault, isolation } = await create();
  const credentials = [{ name: "token", source: { value: "secret" } }];
  for (const call of [
    () => vault.create({ credentials, bindings: [] }),
    () => vault.get(),
    () => vault.patch({ expectedRevision: 1 }),
    () => vault.delete(),
    () => vault.listCredentials(),
    () => vault.getCredential("token"),
    () => vault.listBindings(),
    () => vault.getBinding("b"),
  ]) {
    await refused(501, call);
  }
  // These throw what the package has for nothing else: an Error with the status in its text.
  for (const call of [
    () => isolation.create({ workspace: { path: "/workspace" } }),
    () => isolation.attach("some"),
    () => isolation.list(),
    () => isolation.runOnce("true", "/workspace"),
    () => isolation.withSession({ workspace: { path: "/workspace" } }, async () => {}),
  ]) {
    await assert.rejects(call, /\b501\b.*NOT_SUPPORTED/);
  }
  const seen = await isolation.capabilities();
  assert.equal(seen.available, false);
  assert.ok(seen.message);
});
