// Mattermost's own client, @mattermost/client 11.9.0, against the simulator: if it works, the simulator behaves like
// Mattermost.
// Usage: node mattermost.cjs FILE, where FILE contains the line that mattermost-sim prints.
"use strict";

const fs = require("fs");
const assert = require("assert");
global.WebSocket = require("ws");
const { Client4, WebSocketClient } = require("@mattermost/client");

const sim = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
const [bridge, alice] = sim.users;

const client = new Client4();
client.setUrl(sim.url);

async function until(what, found, ms = 8000) {
  const end = Date.now() + ms;
  for (;;) {
    const value = found();
    if (value) return value;
    if (Date.now() > end) throw new Error("timed out waiting for: " + what);
    await new Promise((done) => setTimeout(done, 20));
  }
}

async function main() {
  const me = await client.login("bridge", "any");
  assert.equal(me.id, bridge.id);
  client.setToken(bridge.token);
  assert.equal((await client.getMe()).username, "bridge");
  const team = await client.getTeamByName(sim.team.name);
  const channels = await client.getMyChannels(team.id);
  assert.deepEqual(channels.map((channel) => channel.name), [sim.channel.name]);
  const channel = await client.getChannelByName(team.id, sim.channel.name);
  assert.equal(channel.id, sim.channel.id);

  const events = [];
  const socket = new WebSocketClient();
  socket.addMessageListener((event) => events.push(event));
  socket.initialize(sim.url.replace("http", "ws") + "/api/v4/websocket", bridge.token);
  await until("hello", () => events.find((event) => event.event === "hello"));
  const untilPost = (event, test) =>
    until(event, () => events.find((one) => one.event === event && test(JSON.parse(one.data.post))));

  const post = await client.createPost({ channel_id: channel.id, message: "one", pending_post_id: me.id + ":1" });
  const again = await client.createPost({ channel_id: channel.id, message: "one", pending_post_id: me.id + ":1" });
  assert.equal(again.id, post.id);
  await untilPost("posted", (one) => one.id === post.id && one.message === "one");
  await client.patchPost({ id: post.id, message: "two" });
  await untilPost("post_edited", (one) => one.id === post.id && one.message === "two");
  const reply = await client.createPost({ channel_id: channel.id, root_id: post.id, message: "below" });
  const thread = await client.getPostThread(post.id);
  assert.deepEqual(Object.keys(thread.posts).sort(), [post.id, reply.id].sort());
  await client.addReaction(me.id, post.id, "tada");
  await until("reaction_added", () => events.find((event) => event.event === "reaction_added"));
  const list = await client.getPosts(channel.id);
  assert.deepEqual(list.order, [reply.id, post.id]);
  await client.deletePost(post.id);
  await untilPost("post_deleted", (one) => one.id === post.id);
  const since = await client.getPostsSince(channel.id, post.create_at - 1);
  assert.notEqual(since.posts[post.id].delete_at, 0);
  await assert.rejects(client.getPost(post.id), (error) => error.status_code === 404);
  const form = new FormData();
  form.append("channel_id", channel.id);
  form.append("files", new Blob(["meow"]), "cat.png");
  const [file] = (await client.uploadFile(form)).file_infos;
  assert.deepEqual([file.name, file.size, file.mime_type], ["cat.png", 4, "image/png"]);
  const carrier = await client.createPost({ channel_id: channel.id, message: "look", file_ids: [file.id] });
  assert.equal(carrier.metadata.files[0].id, file.id);
  const answer = await fetch(client.getFileRoute(file.id), { headers: { Authorization: "Bearer " + bridge.token } });
  assert.equal(await answer.text(), "meow");
  client.setToken("wrong");
  await assert.rejects(client.getMe(), (error) => error.server_error_id === "api.context.session_expired.app_error");
  assert.ok(alice.id);
  socket.close();
  console.log("@mattermost/client works against the simulator");
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
