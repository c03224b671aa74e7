//! What a test does on the server: who is there, and what they do.

use serde_json::{Map, Value, json};

use super::{
    Channel, File, MattermostSim, Post, Team, User,
    world::{World, new_id, now_ms},
};

impl MattermostSim {
    fn world(&self) -> &World {
        &self.0.shared.world
    }

    /// A new person, with a token.
    pub fn add_user(&self, username: &str) -> User {
        self.add(username, false)
    }

    /// A new bot account, with a token.
    pub fn add_bot(&self, username: &str) -> User {
        self.add(username, true)
    }

    fn add(&self, username: &str, is_bot: bool) -> User {
        let user = User {
            id: new_id(),
            username: username.to_owned(),
            nickname: String::new(),
            is_bot,
            token: new_id(),
            picture: None,
        };
        let mut inner = self.world().inner();
        inner.tokens.insert(user.token.clone(), user.id.clone());
        inner.users.push(user.clone());
        user
    }

    /// Somebody chooses a picture: a PNG.
    pub fn set_picture(&self, user: &str, content: Vec<u8>) {
        let mut inner = self.world().inner();
        let user = inner.users.iter_mut().find(|known| known.id == user);
        if let Some(user) = user {
            user.picture = Some((content, now_ms()));
        }
    }

    /// The token is worth nothing from now on; connections that were opened with it close.
    pub fn revoke(&self, token: &str) {
        self.world().inner().tokens.remove(token);
        self.cut(super::Cut::Close);
    }

    /// A user's token is worth as much as before.
    pub fn accept(&self, user: &User) {
        let mut inner = self.world().inner();
        inner.tokens.insert(user.token.clone(), user.id.clone());
    }

    /// A new team.
    pub fn add_team(&self, name: &str) -> Team {
        let team = Team {
            id: new_id(),
            name: name.to_owned(),
        };
        self.world().inner().teams.push(team.clone());
        team
    }

    /// A new channel of a team with these people in it; `O` is open to everybody, `P` is private.
    pub fn add_channel(
        &self,
        team: &Team,
        name: &str,
        kind: &'static str,
        members: &[&User],
    ) -> Channel {
        let channel = Channel {
            id: new_id(),
            team_id: team.id.clone(),
            name: name.to_owned(),
            display_name: name.to_owned(),
            header: String::new(),
            kind,
            delete_at: 0,
            members: members.iter().map(|user| user.id.clone()).collect(),
            admins: std::iter::empty::<String>().collect(),
        };
        self.world().inner().channels.push(channel.clone());
        channel
    }

    /// Somebody gives a channel another name and header.
    pub fn head(&self, channel: &str, name: &str, header: &str) {
        let mut inner = self.world().inner();
        if let Some(place) = inner.channels.iter_mut().find(|place| place.id == channel) {
            (place.display_name, place.header) = (name.to_owned(), header.to_owned());
        }
    }

    /// A channel's name and header.
    pub fn heading(&self, channel: &str) -> Option<(String, String)> {
        let inner = self.world().inner();
        let found = inner.channels.iter().find(|place| place.id == channel)?;
        Some((found.display_name.clone(), found.header.clone()))
    }

    /// Somebody decides about a channel from now on.
    pub fn make_admin(&self, channel: &str, user: &str) {
        let mut inner = self.world().inner();
        if let Some(place) = inner.channels.iter_mut().find(|place| place.id == channel) {
            place.admins.insert(user.to_owned());
        }
    }

    /// Somebody comes into a channel.
    pub fn join(&self, channel: &str, user: &str) {
        self.world().set_member(channel, user, true, self.faults());
    }

    /// Somebody is put out of a channel.
    pub fn remove(&self, channel: &str, user: &str) {
        self.world().set_member(channel, user, false, self.faults());
    }

    /// A channel gets another name in its address.
    pub fn rename(&self, channel: &str, name: &str) {
        let mut inner = self.world().inner();
        if let Some(place) = inner.channels.iter_mut().find(|place| place.id == channel) {
            name.clone_into(&mut place.name);
        }
    }

    /// A channel is archived.
    pub fn archive(&self, channel: &str) {
        self.world().archive(channel, true, self.faults());
    }

    /// It no longer is.
    pub fn unarchive(&self, channel: &str) {
        self.world().archive(channel, false, self.faults());
    }

    /// An admin decides whether apps show the names that integrations choose.
    pub fn allow_overrides(&self, allowed: bool) {
        self.world().allow_overrides(allowed, self.faults());
    }

    /// Somebody writes this; the post, or the id of the error.
    pub fn write(&self, post: Post) -> Result<Post, &'static str> {
        let made = self.world().write(post, self.faults());
        let made = made.map_err(|no| no.1)?;
        let id = made["id"].as_str().unwrap_or_default();
        Ok(self.world().inner().post(id).cloned().unwrap_or_default())
    }

    fn written(&self, post: Post) -> Post {
        self.write(post).unwrap_or_default()
    }

    /// Somebody says something.
    pub fn say(&self, channel: &str, user: &str, text: &str) -> Post {
        self.written(said(channel, user, text))
    }

    /// A post is dated at this moment, as by an import or a clock that was put back, in milliseconds.
    pub fn date(&self, id: &str, at: i64) {
        let mut inner = self.world().inner();
        if let Some(post) = inner.posts.iter_mut().find(|post| post.id == id) {
            (post.create_at, post.update_at) = (at, at);
        }
    }

    /// The same in the thread of a post.
    pub fn say_in_thread(&self, channel: &str, user: &str, root: &str, text: &str) -> Post {
        self.written(Post {
            root_id: root.to_owned(),
            ..said(channel, user, text)
        })
    }

    /// `/me does something`
    pub fn say_me(&self, channel: &str, user: &str, text: &str) -> Post {
        self.written(Post {
            kind: "me".to_owned(),
            ..said(channel, user, &format!("*{text}*"))
        })
    }

    /// The server tells what somebody did; `kind` is `system_join_channel` or another of that sort.
    pub fn say_system(&self, channel: &str, user: &str, kind: &str, text: &str) -> Post {
        let name = self
            .world()
            .inner()
            .user(user)
            .map(|user| user.username.clone());
        let mut props = Map::new();
        props.insert("username".to_owned(), json!(name));
        self.written(Post {
            kind: kind.to_owned(),
            props,
            ..said(channel, user, text)
        })
    }

    /// An integration writes something with attachments, as its `props` say.
    pub fn say_with(&self, channel: &str, user: &str, text: &str, props: &Value) -> Post {
        self.written(Post {
            props: props.as_object().cloned().unwrap_or_default(),
            ..said(channel, user, text)
        })
    }

    /// Somebody sends a file.
    pub fn say_file(&self, channel: &str, user: &str, name: &str, content: &[u8]) -> Post {
        self.say_file_with(channel, user, "", name, content)
    }

    /// Somebody sends a file, with words.
    pub fn say_file_with(
        &self,
        channel: &str,
        user: &str,
        words: &str,
        name: &str,
        content: &[u8],
    ) -> Post {
        let file = File {
            id: new_id(),
            name: name.to_owned(),
            mime_type: type_of(name).to_owned(),
            content: content.to_owned(),
            owner: user.to_owned(),
            channel_id: channel.to_owned(),
        };
        let file_ids = vec![file.id.clone()];
        self.world().inner().files.insert(file.id.clone(), file);
        self.written(Post {
            file_ids,
            ..said(channel, user, words)
        })
    }

    /// What the files of a post hold, by name.
    pub fn files_of(&self, post: &Post) -> Vec<(String, Vec<u8>)> {
        let inner = self.world().inner();
        let files = post.file_ids.iter().filter_map(|id| inner.files.get(id));
        files
            .map(|file| (file.name.clone(), file.content.clone()))
            .collect()
    }

    /// The author edits a post.
    pub fn edit(&self, id: &str, text: &str) {
        let user = self.author(id);
        // A post that is gone is not edited.
        drop(
            self.world()
                .edit(&user, id, (Some(text.to_owned()), None), self.faults()),
        );
    }

    /// The author edits a post, takes away all files but these, and adds one, as servers from 10.5 on let them.
    pub fn edit_files(&self, id: &str, text: &str, kept: &[&str], added: Option<(&str, &[u8])>) {
        let mut inner = self.world().inner();
        let Some(post) = inner.post(id).cloned() else {
            return;
        };
        let is_kept = |id: &String| {
            let file = inner.files.get(id);
            file.is_some_and(|file| kept.contains(&file.name.as_str()))
        };
        let mut file_ids = post.file_ids;
        file_ids.retain(is_kept);
        if let Some((name, content)) = added {
            let file = File {
                id: new_id(),
                name: name.to_owned(),
                mime_type: type_of(name).to_owned(),
                content: content.to_owned(),
                owner: post.user_id,
                channel_id: post.channel_id,
            };
            file_ids.push(file.id.clone());
            inner.files.insert(file.id.clone(), file);
        }
        if let Some(post) = inner.post_mut(id) {
            post.file_ids = file_ids;
        }
        drop(inner);
        self.edit(id, text);
    }

    /// Posts keep their files from now on whatever a change says of them, as a server may that lets nobody change files.
    pub fn keep_files(&self, kept: bool) {
        self.world().inner().keeps_files = kept;
    }

    /// Posts name their files from now on and say nothing more of them, as in some answers of the server.
    pub fn describe_no_files(&self) {
        self.world().inner().is_terse = true;
    }

    /// The author deletes a post.
    pub fn delete(&self, id: &str) {
        let user = self.author(id);
        // A post that is gone is gone.
        drop(self.world().delete(&user, id, self.faults()));
    }

    fn author(&self, id: &str) -> String {
        let inner = self.world().inner();
        inner
            .post(id)
            .map(|post| post.user_id.clone())
            .unwrap_or_default()
    }

    /// Somebody reacts to a post.
    pub fn react(&self, user: &str, id: &str, emoji: &str) {
        // A post that is gone is not reacted to.
        drop(self.world().react(user, id, emoji, true, self.faults()));
    }

    /// Somebody no longer does.
    pub fn unreact(&self, user: &str, id: &str, emoji: &str) {
        drop(self.world().react(user, id, emoji, false, self.faults()));
    }

    /// Somebody types.
    pub fn type_in(&self, channel: &str, user: &str) {
        self.world()
            .broadcast_ephemeral("typing", user, channel, self.faults());
    }

    /// What can be read in a channel, oldest first.
    pub fn posts(&self, channel: &str) -> Vec<Post> {
        let inner = self.world().inner();
        let posts = inner
            .posts
            .iter()
            .filter(|post| post.channel_id == channel && post.delete_at == 0);
        posts.cloned().collect()
    }

    /// Everything that was ever posted in a channel, deleted or not, without old texts.
    pub fn ever(&self, channel: &str) -> Vec<Post> {
        let inner = self.world().inner();
        let posts = inner
            .posts
            .iter()
            .filter(|post| post.channel_id == channel && post.original_id.is_empty());
        posts.cloned().collect()
    }

    /// What somebody is called.
    pub fn name_of(&self, user: &str) -> String {
        let inner = self.world().inner();
        inner
            .user(user)
            .map(|user| user.username.clone())
            .unwrap_or_default()
    }
}

fn said(channel: &str, user: &str, text: &str) -> Post {
    Post {
        channel_id: channel.to_owned(),
        user_id: user.to_owned(),
        message: text.to_owned(),
        ..Post::default()
    }
}

/// As the server guesses it from the name.
fn type_of(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("png") => "image/png",
        _ => "application/octet-stream",
    }
}
