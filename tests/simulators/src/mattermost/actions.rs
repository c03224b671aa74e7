//! What tests can do on the server and make its users do.

use serde_json::{Map, Value, json};

use super::{
    Channel, File, MattermostSim, Post, Team, User,
    world::{World, new_id, now_ms},
};

impl MattermostSim {
    fn world(&self) -> &World {
        &self.0.shared.world
    }

    /// Adds a user, with a token.
    pub fn add_user(&self, username: &str) -> User {
        self.add(username, false)
    }

    /// Adds a bot account, with a token.
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

    /// Sets a user's avatar: a PNG.
    pub fn set_picture(&self, user: &str, content: Vec<u8>) {
        let mut inner = self.world().inner();
        let user = inner.users.iter_mut().find(|known| known.id == user);
        if let Some(user) = user {
            user.picture = Some((content, now_ms()));
        }
    }

    /// Revokes a token; connections that were opened with it close.
    pub fn revoke(&self, token: &str) {
        self.world().inner().tokens.remove(token);
        self.cut(super::Cut::Close);
    }

    /// Restores a user's revoked token.
    pub fn accept(&self, user: &User) {
        let mut inner = self.world().inner();
        inner.tokens.insert(user.token.clone(), user.id.clone());
    }

    /// Adds a team.
    pub fn add_team(&self, name: &str) -> Team {
        let team = Team {
            id: new_id(),
            name: name.to_owned(),
        };
        self.world().inner().teams.push(team.clone());
        team
    }

    /// Adds a channel of a team with these members; `O` is open, `P` is private.
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

    /// Sets the display name and the header of a channel.
    pub fn head(&self, channel: &str, name: &str, header: &str) {
        let mut inner = self.world().inner();
        if let Some(place) = inner.channels.iter_mut().find(|place| place.id == channel) {
            (place.display_name, place.header) = (name.to_owned(), header.to_owned());
        }
    }

    /// The display name and the header of a channel.
    pub fn heading(&self, channel: &str) -> Option<(String, String)> {
        let inner = self.world().inner();
        let found = inner.channels.iter().find(|place| place.id == channel)?;
        Some((found.display_name.clone(), found.header.clone()))
    }

    /// Makes a user an admin of a channel.
    pub fn make_admin(&self, channel: &str, user: &str) {
        let mut inner = self.world().inner();
        if let Some(place) = inner.channels.iter_mut().find(|place| place.id == channel) {
            place.admins.insert(user.to_owned());
        }
    }

    /// Adds a user to a channel.
    pub fn join(&self, channel: &str, user: &str) {
        self.world().set_member(channel, user, true, self.faults());
    }

    /// Removes a user from a channel.
    pub fn remove(&self, channel: &str, user: &str) {
        self.world().set_member(channel, user, false, self.faults());
    }

    /// Changes the name of a channel that is used in URLs.
    pub fn rename(&self, channel: &str, name: &str) {
        let mut inner = self.world().inner();
        if let Some(place) = inner.channels.iter_mut().find(|place| place.id == channel) {
            name.clone_into(&mut place.name);
        }
    }

    /// Archives a channel.
    pub fn archive(&self, channel: &str) {
        self.world().archive(channel, true, self.faults());
    }

    /// Unarchives a channel.
    pub fn unarchive(&self, channel: &str) {
        self.world().archive(channel, false, self.faults());
    }

    /// Sets whether apps show the names that integrations choose.
    pub fn allow_overrides(&self, allowed: bool) {
        self.world().allow_overrides(allowed, self.faults());
    }

    /// Stores a post; returns it, or the id of the error.
    pub fn write(&self, post: Post) -> Result<Post, &'static str> {
        let made = self.world().write(post, self.faults());
        let made = made.map_err(|no| no.1)?;
        let id = made["id"].as_str().unwrap_or_default();
        Ok(self.world().inner().post(id).cloned().unwrap_or_default())
    }

    fn written(&self, post: Post) -> Post {
        self.write(post).unwrap_or_default()
    }

    /// Posts a message as this user.
    pub fn say(&self, channel: &str, user: &str, text: &str) -> Post {
        self.written(new_post(channel, user, text))
    }

    /// Sets the creation time of a post, in milliseconds, as after an import or with a clock that was put back.
    pub fn date(&self, id: &str, at: i64) {
        let mut inner = self.world().inner();
        if let Some(post) = inner.posts.iter_mut().find(|post| post.id == id) {
            (post.create_at, post.update_at) = (at, at);
        }
    }

    /// Posts in the thread of a post.
    pub fn say_in_thread(&self, channel: &str, user: &str, root: &str, text: &str) -> Post {
        self.written(Post {
            root_id: root.to_owned(),
            ..new_post(channel, user, text)
        })
    }

    /// Posts a `/me` message.
    pub fn say_me(&self, channel: &str, user: &str, text: &str) -> Post {
        self.written(Post {
            kind: "me".to_owned(),
            ..new_post(channel, user, &format!("*{text}*"))
        })
    }

    /// The server posts what a user did; `kind` is `system_join_channel` or another of that sort.
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
            ..new_post(channel, user, text)
        })
    }

    /// An integration posts with these `props`, for example attachments.
    pub fn say_with(&self, channel: &str, user: &str, text: &str, props: &Value) -> Post {
        self.written(Post {
            props: props.as_object().cloned().unwrap_or_default(),
            ..new_post(channel, user, text)
        })
    }

    /// Posts a file.
    pub fn say_file(&self, channel: &str, user: &str, name: &str, content: &[u8]) -> Post {
        self.say_file_with(channel, user, "", name, content)
    }

    /// Posts a file with a text.
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
            ..new_post(channel, user, words)
        })
    }

    /// The files of a post, by name.
    pub fn files_of(&self, post: &Post) -> Vec<(String, Vec<u8>)> {
        let inner = self.world().inner();
        let files = post.file_ids.iter().filter_map(|id| inner.files.get(id));
        files
            .map(|file| (file.name.clone(), file.content.clone()))
            .collect()
    }

    /// Edits a post as its author.
    pub fn edit(&self, id: &str, text: &str) {
        let user = self.author(id);
        // A deleted post is not edited.
        drop(
            self.world()
                .edit(&user, id, (Some(text.to_owned()), None), self.faults()),
        );
    }

    /// Edits a post as its author, removes all files except these, and adds one, as servers from 10.5 on allow.
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

    /// Sets whether posts keep their files whatever an edit says of them, as on a server where files cannot be changed.
    pub fn keep_files(&self, kept: bool) {
        self.world().inner().keeps_files = kept;
    }

    /// From now on posts list only the ids of their files, as in some responses of the server.
    pub fn describe_no_files(&self) {
        self.world().inner().is_terse = true;
    }

    /// Deletes a post as its author.
    pub fn delete(&self, id: &str) {
        let user = self.author(id);
        // A deleted post stays deleted.
        drop(self.world().delete(&user, id, self.faults()));
    }

    fn author(&self, id: &str) -> String {
        let inner = self.world().inner();
        inner
            .post(id)
            .map(|post| post.user_id.clone())
            .unwrap_or_default()
    }

    /// Adds a user's reaction to a post.
    pub fn react(&self, user: &str, id: &str, emoji: &str) {
        // A deleted post gets no reaction.
        drop(self.world().react(user, id, emoji, true, self.faults()));
    }

    /// Removes a user's reaction.
    pub fn unreact(&self, user: &str, id: &str, emoji: &str) {
        drop(self.world().react(user, id, emoji, false, self.faults()));
    }

    /// A user types.
    pub fn type_in(&self, channel: &str, user: &str) {
        self.world()
            .broadcast_ephemeral("typing", user, channel, self.faults());
    }

    /// The posts of a channel that can be read, oldest first.
    pub fn posts(&self, channel: &str) -> Vec<Post> {
        let inner = self.world().inner();
        let posts = inner
            .posts
            .iter()
            .filter(|post| post.channel_id == channel && post.delete_at == 0);
        posts.cloned().collect()
    }

    /// Every post that was ever made in a channel, deleted or not, without old versions.
    pub fn ever(&self, channel: &str) -> Vec<Post> {
        let inner = self.world().inner();
        let posts = inner
            .posts
            .iter()
            .filter(|post| post.channel_id == channel && post.original_id.is_empty());
        posts.cloned().collect()
    }

    /// The username of a user.
    pub fn name_of(&self, user: &str) -> String {
        let inner = self.world().inner();
        inner
            .user(user)
            .map(|user| user.username.clone())
            .unwrap_or_default()
    }
}

fn new_post(channel: &str, user: &str, text: &str) -> Post {
    Post {
        channel_id: channel.to_owned(),
        user_id: user.to_owned(),
        message: text.to_owned(),
        ..Post::default()
    }
}

/// The MIME type that the server derives from the file name.
fn type_of(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("png") => "image/png",
        _ => "application/octet-stream",
    }
}
