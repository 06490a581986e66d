// Commands, sessions and files with the official client for JavaScript.
import assert from "node:assert/strict";
import { before, test } from "node:test";
import { create, lines, refused, until } from "./connection.mjs";

let sandbox, commands, files;

before(async () => {
  sandbox = await create();
  ({ commands, files } = sandbox);
});

test("run", async () => {
  const heard = [];
  const run = await commands.run("echo one; echo; echo err >&2; exit 3", {}, {
    onInit: (init) => heard.push(["init", init.id]),
    onStdout: (message) => heard.push(["out", message.text.trimEnd()]),
    onStderr: (message) => heard.push(["err", message.text]),
    onError: (error) => heard.push(["error", error.value]),
  });
  assert.deepEqual(lines(run).map((line) => line.trimEnd()), ["one", ""]);
  assert.deepEqual(lines(run, "stderr"), ["err"]);
  assert.equal(run.exitCode, 3);
  assert.deepEqual([run.error.name, run.error.value], ["CommandExecError", "3"]);
  assert.deepEqual(heard[0], ["init", run.id]);
  assert.deepEqual(heard.at(-1), ["error", "3"]);
  const good = await commands.run("pwd; echo $WORD", { workingDirectory: "/tmp", envs: { WORD: "été" } });
  assert.deepEqual(lines(good), ["/tmp", "été"]);
  assert.ok(good.exitCode === 0 && good.complete.executionTimeMs >= 0);
});

test("a command ends when it ends", async () => {
  const took = [];
  for (let turn = 0; turn < 9; turn += 1) {
    const began = performance.now();
    assert.deepEqual(lines(await commands.run("echo hello")), ["hello"]);
    took.push(performance.now() - began);
  }
  assert.ok(took.sort((a, b) => a - b)[4] < 700, String(took));
});

test("run stream", async () => {
  const events = [];
  for await (const event of commands.runStream("echo a; echo b >&2")) events.push(event);
  assert.equal(events[0].type, "init");
  assert.equal(events.at(-1).type, "execution_complete");
  assert.equal(events.find((event) => event.type === "stdout").text, "a");
  assert.equal(events.find((event) => event.type === "stderr").text, "b");
  assert.ok(events.every((event) => Number.isInteger(event.timestamp)));
});

test("much output", async () => {
  const run = await commands.run("seq -f '%079.0f' 1 100000");
  const got = lines(run);
  assert.equal(got.length, 100_000);
  assert.ok(got.every((line, n) => Number(line) === n + 1));
});

test("time is limited", async () => {
  const began = Date.now();
  const run = await commands.run("echo begun; sleep 300", { timeoutSeconds: 1 });
  assert.deepEqual(lines(run), ["begun"]);
  assert.ok(run.exitCode !== 0 && run.error && Date.now() - began < 30_000);
});

test("interrupt", async () => {
  let id;
  const run = await commands.run("echo on; sleep 300", {}, {
    onInit: (init) => {
      id = init.id;
    },
    onStdout: () => commands.interrupt(id),
  });
  assert.ok(run.error && run.exitCode !== 0);
});

test("background", async () => {
  const run = await commands.run("echo a; sleep 0.2; echo b; exit 5", { background: true });
  const status = await until(async () => {
    const seen = await commands.getCommandStatus(run.id);
    return !seen.running && seen;
  }, "ended");
  assert.deepEqual([status.id, status.exitCode], [run.id, 5]);
  assert.ok(status.startedAt instanceof Date && status.finishedAt >= status.startedAt);
  const logs = await commands.getBackgroundCommandLogs(run.id);
  assert.deepEqual([logs.content, logs.cursor], ["a\nb\n", 4]);
  assert.equal((await commands.getBackgroundCommandLogs(run.id, 2)).content, "b\n");
  await refused(404, () => commands.getCommandStatus("0".repeat(32)));
});

test("sessions", async () => {
  const session = await commands.createSession({ workingDirectory: "/tmp" });
  const first = await commands.runInSession(session, "pwd; cd /usr; export SEEN=1");
  assert.deepEqual([lines(first), first.exitCode], [["/tmp"], 0]);
  const heard = [];
  const second = await commands.runInSession(session, "pwd; echo $SEEN; exit 4", {}, {
    onStdout: (message) => heard.push(message.text),
  });
  assert.deepEqual([heard, second.exitCode], [["/usr", "1"], 4]);
  const there = await commands.runInSession(session, "pwd", { workingDirectory: "/var", timeoutSeconds: 20 });
  assert.deepEqual(lines(there), ["/var"]);
  await commands.deleteSession(session);
  await refused(404, () => commands.deleteSession(session));
  assert.ok(await commands.createSession());
});

test("write and read", async () => {
  const raw = Uint8Array.from({ length: 256 }, (_, n) => n);
  const streamed = (async function* () {
    yield raw;
    yield raw;
  })();
  await files.writeFiles([
    { path: "/workspace/js/text", data: "line 1\nline 2\nline 3\n", mode: 640 },
    { path: "/workspace/js/bytes", data: raw },
    { path: "/workspace/js/stream", data: streamed },
    { path: "/workspace/js/blob", data: new Blob(["blob"]) },
  ]);
  assert.equal(await files.readFile("/workspace/js/text"), "line 1\nline 2\nline 3\n");
  assert.equal(await files.readFile("/workspace/js/text", { range: "bytes=0-3" }), "line");
  assert.equal(await files.readFile("/workspace/js/text", { offset: 2, limit: 1 }), "line 2");
  assert.deepEqual(await files.readBytes("/workspace/js/bytes"), raw);
  assert.equal((await files.readBytes("/workspace/js/stream")).length, 512);
  assert.equal(await files.readFile("/workspace/js/blob"), "blob");
  const pieces = [];
  for await (const piece of files.readBytesStream("/workspace/js/bytes")) pieces.push(...piece);
  assert.deepEqual(pieces, [...raw]);
  const seen = (await files.getFileInfo(["/workspace/js/text"]))["/workspace/js/text"];
  assert.deepEqual([seen.type, seen.mode, seen.size], ["file", 640, 21]);
  assert.ok(seen.modifiedAt instanceof Date && seen.owner && seen.group);
  await refused(404, () => files.readFile("/workspace/js/none"));
});

test("find", async () => {
  await files.createDirectories([{ path: "/workspace/find/deep", mode: 700 }]);
  await files.writeFiles(["a.js", "b.txt", "deep/c.js"].map((name) => ({ path: `/workspace/find/${name}`, data: "x" })));
  const found = await files.search({ path: "/workspace/find", pattern: "*.js" });
  assert.deepEqual(found.map((info) => info.path).sort(), ["/workspace/find/a.js", "/workspace/find/deep/c.js"]);
  const listed = await files.listDirectory({ path: "/workspace/find" });
  assert.deepEqual(
    Object.fromEntries(listed.map((info) => [info.path.slice(16), info.type])),
    { "a.js": "file", "b.txt": "file", deep: "directory" },
  );
  const deep = await files.listDirectory({ path: "/workspace/find", depth: 2 });
  assert.equal(deep.length, 4);
  await files.deleteDirectories(["/workspace/find"]);
  await refused(404, () => files.getFileInfo(["/workspace/find"]));
});

test("change", async () => {
  const path = "/workspace/change/a";
  await files.writeFiles([{ path, data: "one two one" }]);
  await files.replaceContents([{ path, oldContent: "two", newContent: "zwei" }]);
  const counts = await files.replaceContentsDetailed([{ path, oldContent: "one", newContent: "1" }]);
  assert.deepEqual(counts, [{ path, replacedCount: 2 }]);
  assert.equal(await files.readFile(path), "1 zwei 1");
  await files.setPermissions([{ path, mode: 604 }]);
  assert.deepEqual(lines(await commands.run(`stat -c %a ${path}`)), ["604"]);
  await files.moveFiles([{ src: path, dest: "/workspace/change/new/b" }]);
  assert.equal(await files.readFile("/workspace/change/new/b"), "1 zwei 1");
  await files.deleteFiles(["/workspace/change/new/b"]);
  await refused(404, () => files.readFile("/workspace/change/new/b"));
});
