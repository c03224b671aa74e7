"""mattermostdriver 7.3.2 against the simulator. Usage: mattermost_check.py FILE, with the line that mattermost-sim prints."""

import json
import sys
from urllib.parse import urlparse

from mattermostdriver import Driver
from mattermostdriver.exceptions import NoAccessTokenProvided, ResourceNotFound

with open(sys.argv[1], encoding="utf-8") as file:
    sim = json.load(file)
url = urlparse(sim["url"])
driver = Driver(
    {
        "url": url.hostname,
        "port": url.port,
        "scheme": "http",
        "token": sim["users"][0]["token"],
        "verify": False,
    }
)
me = driver.login()
assert me["username"] == "bridge", me
team = driver.teams.get_team_by_name(sim["team"]["name"])
channel = driver.channels.get_channel_by_name(team["id"], sim["channel"]["name"])
assert channel["id"] == sim["channel"]["id"]
post = driver.posts.create_post({"channel_id": channel["id"], "message": "one"})
driver.posts.patch_post(post["id"], {"message": "two"})
assert driver.posts.get_post(post["id"])["message"] == "two"
reply = driver.posts.create_post(
    {"channel_id": channel["id"], "message": "below", "root_id": post["id"]}
)
assert set(driver.posts.get_thread(post["id"])["posts"]) == {post["id"], reply["id"]}
listed = driver.posts.get_posts_for_channel(channel["id"])
assert listed["order"][0] == reply["id"], listed["order"]
driver.posts.delete_post(post["id"])
try:
    driver.posts.get_post(post["id"])
except ResourceNotFound:
    pass
else:
    raise AssertionError("a deleted post is still there")
driver.client.token = "wrong"
try:
    driver.users.get_user("me")
except NoAccessTokenProvided:
    pass
else:
    raise AssertionError("a wrong token is accepted")
print("mattermostdriver works against the simulator")
