// Gitter's own client, node-gitter 2.1.0, against the simulator: if it works, the simulator behaves like Gitter.
// Usage: node check.cjs FILE, where FILE contains the line that gitter-sim prints.
"use strict";

const fs = require("fs");
const http = require("http");
const https = require("https");
const assert = require("assert");
const Gitter = require("node-gitter");

const sim = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
const [me, alice] = sim.users;
const uri = sim.rooms[0].uri;
const roomId = sim.rooms[0].id;

// The client's streaming host is fixed: requests to it go to the simulator's stream port.
const stream = new URL(sim.stream);
const realRequest = https.request;
https.request = (options, onAnswer) => {
  if (options.host !== "stream.gitter.im") return realRequest(options, onAnswer);
  return http.request({ ...options, host: stream.hostname, port: stream.port }, onAnswer);
};

const gitter = new Gitter(me.token, {
  client: { apiEndpoint: sim.api },
  faye: { host: sim.realtime.replace("ws:", "http:") },
});

async function order(path, body) {
  const answer = await fetch(sim.control + path, { method: "POST", body: JSON.stringify(body) });
  const value = await answer.json();
  assert.ok(answer.ok, path + ": " + JSON.stringify(value));
  return value;
}

const say = (text) => order("/say", { room: uri, user: alice.username, text });
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

async function until(what, found, ms = 8000) {
  const end = Date.now() + ms;
  while (Date.now() < end) {
    const value = found();
    if (value) return value;
    await pause(20);
  }
  throw new Error("timed out waiting for: " + what);
}

async function refused(status, promise) {
  const error = await promise.then(() => null, (error) => error);
  assert.ok(error, "was not refused");
  assert.ok(error.message.startsWith(String(status)), error.message);
}

let passed = 0;
let failed = 0;
async function check(name, body) {
  try {
    await body();
    passed += 1;
    console.log("ok   " + name);
  } catch (error) {
    failed += 1;
    console.log("FAIL " + name + "\n     " + (error && error.stack));
  }
}

async function rest() {
  await check("a chunked request is refused, as it was from 2020 on", async () => {
    await refused(406, gitter.rooms.findByUri(uri));
  });
  // The client always sends its bodies chunked: it is from before 2020.
  await order("/chunked", { allow: true });

  await check("the current user", async () => {
    const user = await gitter.currentUser();
    assert.equal(user.id, me.id);
    assert.equal(user.username, me.username);
  });
  await check("a user by name", async () => {
    assert.equal((await gitter.users.findByUsername(alice.username)).id, alice.id);
  });
  await check("one's own user by id, and nobody else's", async () => {
    assert.equal((await gitter.users.findById(me.id)).username, me.username);
    await refused(403, gitter.users.findById(alice.id));
  });
  await check("joining a room by its uri", async () => {
    const room = await gitter.rooms.join(uri.toUpperCase());
    assert.equal(room.id, roomId);
    assert.equal(room.name, uri);
  });
  await check("an unknown room", async () => {
    await refused(404, gitter.rooms.join("no-such/room"));
  });
  await check("all rooms", async () => {
    const user = await gitter.currentUser();
    assert.ok((await user.rooms()).some((room) => room.id === roomId));
    assert.ok((await gitter.rooms.findAll()).some((room) => room.id === roomId));
  });
  await check("sending a message", async () => {
    const room = await gitter.rooms.find(roomId);
    const message = await room.send("hello **there**, @" + alice.username);
    assert.match(message.id, /^[0-9a-f]{24}$/);
    assert.equal(message.fromUser.id, me.id);
    assert.ok(message.html.includes("<strong>there</strong>"));
    assert.equal(message.mentions[0].userId, alice.id);
  });
  await check("sending a status", async () => {
    const room = await gitter.rooms.find(roomId);
    assert.equal((await room.sendStatus("@" + me.username + " waves")).status, true);
  });
  await check("a text that is too long", async () => {
    const room = await gitter.rooms.find(roomId);
    await refused(400, room.send("x".repeat(4097)));
  });
  await check("listing messages, oldest first", async () => {
    const room = await gitter.rooms.find(roomId);
    for (let n = 0; n < 6; n += 1) await room.send("line " + n);
    const messages = await room.chatMessages({ limit: 5 });
    assert.deepEqual(messages.map((m) => m.text), [1, 2, 3, 4, 5].map((n) => "line " + n));
    const before = await room.chatMessages({ limit: 2, beforeId: messages[0].id });
    assert.equal(before.length, 2);
  });
  await check("editing a message", async () => {
    const room = await gitter.rooms.find(roomId);
    const message = await room.send("tpyo");
    const path = "/rooms/" + roomId + "/chatMessages/" + message.id;
    const edited = await gitter.client.put(path, { body: { text: "typo" } });
    assert.equal(edited.text, "typo");
    assert.ok(edited.editedAt);
    assert.equal((await gitter.client.get(path)).text, "typo");
  });
  await check("deleting a message, whose empty answer the client cannot read", async () => {
    const room = await gitter.rooms.find(roomId);
    const message = await room.send("to be deleted");
    const path = "/rooms/" + roomId + "/chatMessages/" + message.id;
    await refused(204, gitter.client.delete(path));
    await refused(404, gitter.client.get(path));
  });
  await check("the users of a room", async () => {
    const room = await gitter.rooms.find(roomId);
    assert.ok((await room.users()).some((user) => user.id === alice.id));
  });
  await check("marking messages as read", async () => {
    const user = await gitter.currentUser();
    const message = await say("read me");
    const answer = await user.markAsRead(roomId, [message.id]);
    assert.equal(answer.success, true);
  });
  await check("leaving and coming back", async () => {
    const room = await gitter.rooms.find(roomId);
    assert.equal((await room.removeUser(me.id)).success, true);
    const user = await gitter.currentUser();
    assert.ok(!(await user.rooms()).some((room) => room.id === roomId));
    await gitter.rooms.join(uri);
  });
  await check("the rate limit is read from the headers", async () => {
    await gitter.currentUser();
    assert.ok(Number(gitter.client.remaining) < Number(gitter.client.rateLimit));
  });
}

async function realtime() {
  const room = await gitter.rooms.find(roomId);
  const events = [];
  let snapshot = null;
  const chat = room.streaming().chatMessages();
  chat.on("chatMessages", (event) => events.push(event));
  const resource = "/api/v1/rooms/" + roomId + "/chatMessages";
  gitter.faye.subscriptions[resource].emitter.on("snapshot", (found) => (snapshot = found));
  const heard = (operation, test) =>
    until(operation, () => events.find((e) => e.operation === operation && test(e.model)));

  await check("realtime: the snapshot", async () => {
    await until("snapshot", () => snapshot);
    assert.ok(snapshot.length > 0);
  });
  let message;
  await check("realtime: create", async () => {
    message = await say("by Bayeux: äöü 🎉");
    const { model } = await heard("create", (m) => m.id === message.id);
    assert.equal(model.text, message.text);
    assert.equal(model.fromUser.id, alice.id);
    assert.ok(!("unread" in model));
  });
  await check("realtime: one's own message comes back", async () => {
    const own = await room.send("my own");
    await heard("create", (m) => m.id === own.id);
  });
  await check("realtime: update", async () => {
    await order("/edit", { room: uri, message: message.id, text: "changed" });
    const { model } = await heard("update", (m) => m.id === message.id);
    assert.equal(model.text, "changed");
    assert.ok(model.editedAt);
  });
  await check("realtime: remove", async () => {
    await order("/delete", { room: uri, message: message.id });
    const { model } = await heard("remove", (m) => m.id === message.id);
    assert.deepEqual(Object.keys(model), ["id"]);
  });
  await check("realtime: over a websocket", async () => {
    const calls = await (await fetch(sim.control + "/calls")).json();
    assert.ok(calls["BAYEUX upgrade"] >= 1, JSON.stringify(calls));
  });
  await check("realtime: the client recovers from a forgotten session", async () => {
    await order("/realtime", { expire: true });
    await order("/cut", { port: "realtime", how: "close" });
    // Faye retries after its own pause, so several tries may be needed.
    for (let n = 0; n < 60; n += 1) {
      const again = await say("again " + n);
      await pause(250);
      if (events.some((e) => e.operation === "create" && e.model.id === again.id)) return;
    }
    throw new Error("no event arrived any more");
  });
}

async function streaming() {
  const room = await gitter.rooms.find(roomId);
  const seen = [];
  room.listen().on("message", (message) => seen.push(message));
  for (let n = 0; n < 100; n += 1) {
    const { streams } = await (await fetch(sim.control + "/listeners")).json();
    if (streams > 0) break;
    await pause(20);
  }
  await check("stream: a message of somebody else, and one's own", async () => {
    const theirs = await say("by stream: äöü");
    const found = await until("message", () => seen.find((m) => m.id === theirs.id));
    assert.equal(found.text, theirs.text);
    const mine = await room.send("mine by stream");
    await until("own message", () => seen.find((m) => m.id === mine.id));
  });
  await check("stream: edits are not on it", async () => {
    const message = await say("before the edit");
    await until("message", () => seen.find((m) => m.id === message.id));
    await order("/edit", { room: uri, message: message.id, text: "after the edit" });
    const last = await say("after it");
    await until("message", () => seen.find((m) => m.id === last.id));
    assert.ok(!seen.some((m) => m.text === "after the edit"));
  });
}

(async () => {
  await rest();
  await realtime();
  await streaming();
})()
  .catch((error) => {
    failed += 1;
    console.log("FAIL the check itself\n     " + error.stack);
  })
  .finally(() => {
    console.log(passed + " passed, " + failed + " failed");
    process.exit(failed === 0 ? 0 : 1);
  });
