//! Pure functions from events of a Mattermost channel to arrivals for the journal.

use footbridge_core::{
    file::{File, Kind},
    inbox::{Arrival, ArrivalContent},
    message::{Action, Command, Message, Sender, Style},
    peer_bridges::ACCOUNT_PREFIX,
    text::{Body, Inline},
};
use footbridge_store::{Millis, Place, RemoteId, SkipRule};
use url::Url;

use super::{
    api::{Post, Reaction},
    attachment::attached,
    emoji,
};
use crate::markdown::body_from_markdown_of;

/// The name of authors that Mattermost does not name.
pub const UNKNOWN_AUTHOR: &str = "Someone on Mattermost";

/// What is known of the author of a post.
#[derive(Clone, Copy)]
pub struct PostAuthor<'a> {
    /// Their name.
    pub name: &'a str,
    /// Their avatar.
    pub picture: Option<&'a str>,
    /// Whether it is a bot account, which may post for others.
    pub is_bot: bool,
    /// The address of their server: addresses without a host are relative to it.
    pub server: Option<&'a Url>,
}

impl<'a> From<&'a str> for PostAuthor<'a> {
    fn from(name: &'a str) -> Self {
        Self {
            name,
            picture: None,
            is_bot: false,
            server: None,
        }
    }
}

/// A new post by this author.
pub fn post<'a>(place: &Place, post: &Post, who: impl Into<PostAuthor<'a>>) -> Arrival {
    let who = who.into();
    // A post of a webhook was not written by the account's owner.
    let command = Command::in_channel(&post.message, || account(post, who), post.thread())
        .filter(|_| !post.props.speaks_for_another());
    let payload = if let Some(command) = command {
        command.into()
    } else {
        match action_of(post, who.server) {
            Some(action) => ArrivalContent::from(Message {
                sender: sender(post, who),
                sent_at: post.sent_at(),
                files: match action {
                    Action::Post { .. } => files(post),
                    _ => Vec::new(),
                },
                action,
            }),
            None => ArrivalContent::Skipped(SkipRule::Empty),
        }
    };
    Arrival {
        place: place.clone(),
        event_id: post.remote(),
        message: Some(post.remote()),
        thread: post.thread(),
        sent_at: post.sent_at(),
        payload,
    }
}

fn action_of(post: &Post, server: Option<&Url>) -> Option<Action> {
    if post.kind.starts_with("system_") {
        let summary = one_line(&body_from_markdown_of(&post.message, server).to_plain());
        return (!summary.is_empty()).then_some(Action::System { summary });
    }
    let (body, style) = content(post, server);
    let says_something = !body.is_empty() || !files(post).is_empty();
    says_something.then(|| Action::Post {
        body,
        style,
        reply_to: None,
        thread: post.thread(),
    })
}

/// What an edit says that leaves a post without text and files.
const NO_TEXT: &str = "(no text)";

/// A new text for a post.
pub fn edit<'a>(place: &Place, post: &Post, who: impl Into<PostAuthor<'a>>) -> Arrival {
    let who = who.into();
    let (mut body, style) = content(post, who.server);
    let files = files(post);
    if body.is_empty() && files.is_empty() {
        // A name with nothing behind it looks as if the bridge had lost the text.
        body = Body::plain(NO_TEXT);
    }
    let change = Message {
        sender: sender(post, who),
        sent_at: Millis(post.edit_at),
        action: Action::Edit {
            target: post.remote(),
            body,
            style,
        },
        files,
    };
    build_arrival(place, edit_event_id(post), change.sent_at, change.into())
}

/// The edit whose text a post already had when the bridge first saw it: recorded, so that it is not new later.
pub fn edit_included(place: &Place, post: &Post) -> Arrival {
    let payload = ArrivalContent::Skipped(SkipRule::EditIncluded);
    build_arrival(place, edit_event_id(post), Millis(post.edit_at), payload)
}

/// A post that is recorded and skipped by this rule.
pub fn note_only(place: &Place, post: &Post, rule: SkipRule) -> Arrival {
    Arrival {
        place: place.clone(),
        event_id: post.remote(),
        message: Some(post.remote()),
        thread: post.thread(),
        sent_at: post.sent_at(),
        payload: ArrivalContent::Skipped(rule),
    }
}

/// A post was deleted; Mattermost does not say by whom.
pub fn deletion(place: &Place, post: &Post) -> Arrival {
    let seen_at = Millis(post.delete_at.max(post.update_at));
    let change = Message {
        sender: Sender {
            id: String::new(),
            name: UNKNOWN_AUTHOR.to_owned(),
            avatar: None,
        },
        sent_at: seen_at,
        action: Action::Delete {
            target: post.remote(),
        },
        files: Vec::new(),
    };
    build_arrival(place, deletion_event_id(&post.id).0, seen_at, change.into())
}

/// The event id of a post's deletion.
pub fn deletion_event_id(post: &str) -> RemoteId {
    RemoteId(format!("{post}/delete"))
}

/// Somebody reacted to a post; `None` for what is no emoji.
pub fn reaction(place: &Place, reaction: &Reaction, name: &str) -> Option<Arrival> {
    let (post, user, emoji) = (&reaction.post_id, &reaction.user_id, &reaction.emoji_name);
    let action = Action::React {
        target: RemoteId::from(post.as_str()),
        key: emoji::key_of(emoji)?,
    };
    let at = reaction.create_at;
    let event_id = RemoteId::with_private_suffix(&format!("{post}/react/{user}/{at}"), emoji);
    Some(about(place, event_id.0, at, user, name, action))
}

/// The user with this id removed the reaction `key`. `at` is when the bridge noticed, in milliseconds since the Unix epoch.
pub fn reaction_removed(place: &Place, post: &str, user: &str, key: &str, at: i64) -> Arrival {
    let action = Action::Unreact {
        target: RemoteId::from(post),
        key: key.to_owned(),
    };
    let event_id = RemoteId::with_private_suffix(&format!("{post}/unreact/{user}/{at}"), key);
    about(place, event_id.0, at, user, UNKNOWN_AUTHOR, action)
}

fn about(
    place: &Place,
    event_id: String,
    at: i64,
    user: &str,
    name: &str,
    action: Action,
) -> Arrival {
    let change = Message {
        sender: Sender {
            id: user.to_owned(),
            name: name.to_owned(),
            avatar: None,
        },
        sent_at: Millis(at),
        action,
        files: Vec::new(),
    };
    build_arrival(place, event_id, change.sent_at, change.into())
}

fn build_arrival(
    place: &Place,
    event_id: String,
    sent_at: Millis,
    payload: ArrivalContent,
) -> Arrival {
    Arrival {
        place: place.clone(),
        event_id: RemoteId(event_id),
        message: None,
        thread: None,
        sent_at,
        payload,
    }
}

fn edit_event_id(post: &Post) -> String {
    format!("{}/edit/{}", post.id, post.edit_at)
}

/// The author of a post, as people see it. A bot account may post for many: each overridden name is a sender of its
/// own. For anybody else an overridden name is a mere claim, because everybody may set one: it follows the account's
/// name, and does not change who the sender is.
fn sender(post: &Post, who: PostAuthor<'_>) -> Sender {
    let account = account(post, who);
    match post.props.claimed_name() {
        None => account,
        Some(shown) if who.is_bot => Sender {
            id: format!("{}{}/{shown}", ours(post), post.user_id),
            name: shown.to_owned(),
            avatar: None,
        },
        Some(claimed) => Sender {
            name: format!("{} (as {claimed})", account.name),
            avatar: None,
            ..account
        },
    }
}

/// The account of a post.
fn account(post: &Post, who: PostAuthor<'_>) -> Sender {
    Sender {
        id: post.user_id.clone(),
        name: who.name.to_owned(),
        avatar: who.picture.map(str::to_owned),
    }
}

/// The id prefix of posts that another Footbridge made.
fn ours(post: &Post) -> &'static str {
    if post.props.mark.is_some() {
        ACCOUNT_PREFIX
    } else {
        ""
    }
}

fn content(post: &Post, server: Option<&Url>) -> (Body, Style) {
    let is_action = post.kind == "me";
    let text = match &post.props.message {
        // An edit changes the message, but not this property.
        Some(text) if is_action && post.edit_at == 0 => text.as_str(),
        _ if is_action => without_marks(&post.message),
        _ => post.message.as_str(),
    };
    let mut body = body_from_markdown_of(text, server);
    body.visit_runs(&mut |line| *line = called(std::mem::take(line)));
    for attachment in &post.props.attachments {
        body.0.extend(attached(attachment, server));
    }
    let style = if is_action { Style::Emote } else { Style::Text };
    (body, style)
}

/// The text of an emote, without the pair of marks that the server puts around it.
fn without_marks(message: &str) -> &str {
    let message = message.trim();
    let inner = message.strip_prefix('*');
    inner
        .and_then(|inner| inner.strip_suffix('*'))
        .unwrap_or(message)
}

/// Text with its `@username` mentions, which are ids on Mattermost.
fn called(line: Vec<Inline>) -> Vec<Inline> {
    let in_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let mut out = Vec::new();
    for inline in line {
        let Inline::Text(text) = inline else {
            out.push(inline);
            continue;
        };
        let (mut plain, mut rest) = (String::new(), text.as_str());
        while let Some((before, after)) = rest.split_once('@') {
            plain.push_str(before);
            let end = after.find(|c| !in_name(c)).unwrap_or(after.len());
            let (name, behind) = after.split_at(end);
            // A full stop after a name ends the sentence.
            let name = name.trim_end_matches(['.', '-', '_']);
            let behind = after.get(name.len()..).unwrap_or(behind);
            if name.is_empty() || plain.ends_with(in_name) {
                plain.push('@');
                rest = after;
                continue;
            }
            out.extend((!plain.is_empty()).then(|| Inline::Text(std::mem::take(&mut plain))));
            out.push(Inline::Mention {
                id: name.to_owned(),
                name: name.to_owned(),
            });
            rest = behind;
        }
        plain.push_str(rest);
        out.extend((!plain.is_empty()).then_some(Inline::Text(plain)));
    }
    out
}

pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// An image of at most this many bytes needs no thumbnail.
const NO_PREVIEW_BELOW: u64 = 100_000;

/// The files of a post. Of a file that only its id names, nothing else is known.
fn files(post: &Post) -> Vec<File> {
    let listed = &post.metadata.files;
    let bare = post.file_ids.iter().flatten();
    let bare = bare.filter(|id| listed.iter().all(|file| file.id != **id));
    let bare = bare.map(|id| File {
        source: id.clone(),
        ..File::default()
    });
    listed
        .iter()
        .map(|file| File {
            name: file.name.clone(),
            mime: file.mime_type.clone(),
            kind: Kind::of_type(&file.mime_type),
            size: Some(file.size),
            dimensions: (file.width > 0 && file.height > 0).then_some((file.width, file.height)),
            duration: None,
            // A small image is its own thumbnail.
            has_thumbnail: file.has_preview_image && file.size > NO_PREVIEW_BELOW,
            source: file.id.clone(),
            link: None,
        })
        .chain(bare)
        .collect()
}

#[cfg(test)]
mod tests {
    use footbridge_core::text::html_from_body;
    use serde_json::{Value, json};

    use super::*;

    fn read(value: Value) -> Post {
        serde_json::from_value(value).unwrap()
    }

    fn spoken(value: Value) -> Message {
        match post(&Place::new("mm", "c"), &read(value), "Bob").payload {
            ArrivalContent::Message(message) => *message,
            _ => panic!("somebody said something"),
        }
    }

    fn html(value: Value) -> (String, Style) {
        match spoken(value).action {
            Action::Post { body, style, .. } => (html_from_body(&body), style),
            _ => panic!("a post"),
        }
    }

    #[test]
    fn an_action_loses_the_marks_around_it() {
        let with =
            json!({"id": "a", "type": "me", "message": "*waves*", "props": {"message": "waves"}});
        assert_eq!(html(with), ("waves".to_owned(), Style::Emote));
        for (message, said) in [
            ("*waves*", "waves"),
            ("*waves *now**", "waves <em>now</em>"),
            ("*", "*"),
            ("waves", "waves"),
        ] {
            let without = json!({"id": "a", "type": "me", "message": message});
            assert_eq!(html(without), (said.to_owned(), Style::Emote), "{message}");
        }
    }

    #[test]
    fn an_edited_action_shows_its_new_text() {
        for message in ["*waves again*", "waves again"] {
            let edited = json!({"id": "a", "type": "me", "message": message, "edit_at": 2,
                "props": {"message": "waves"}});
            // Also where the edit is all that the bridge ever sees of it.
            assert_eq!(
                html(edited.clone()),
                ("waves again".to_owned(), Style::Emote)
            );
            let ArrivalContent::Message(message) =
                edit(&Place::new("mm", "c"), &read(edited), "Bob").payload
            else {
                panic!("an edit");
            };
            let Action::Edit { body, style, .. } = message.action else {
                panic!("an edit");
            };
            assert_eq!(
                (body.to_plain(), style),
                ("waves again".to_owned(), Style::Emote)
            );
        }
    }

    #[test]
    fn an_edit_that_leaves_no_text_is_marked() {
        let text_of = |edited: Value| {
            let place = Place::new("mm", "c");
            let ArrivalContent::Message(message) = edit(&place, &read(edited), "Bob").payload
            else {
                panic!("an edit");
            };
            let Action::Edit { body, .. } = message.action else {
                panic!("an edit");
            };
            body.to_plain()
        };
        let emptied = json!({"id": "a", "message": "", "edit_at": 2});
        assert_eq!(text_of(emptied), NO_TEXT);
        let file = json!({"id": "f", "name": "cat.png"});
        let kept = json!({"id": "a", "message": "", "edit_at": 2, "file_ids": ["f"],
            "metadata": {"files": [file]}});
        assert_eq!(text_of(kept), "");
    }

    #[test]
    fn system_messages_have_no_author() {
        let told = json!({"id": "a", "type": "system_join_channel", "message": "carol joined\nthe channel."});
        let Action::System { summary } = spoken(told).action else {
            panic!("a system message");
        };
        assert_eq!(summary, "carol joined the channel.");
    }

    #[test]
    fn attachments_of_integrations_are_read_as_text() {
        let attachment = json!({
            "pretext": "Build", "title": "#7", "title_link": "https://ci.example/7", "text": "**green**",
            "fields": [{"title": "Branch", "value": "main"}, {"title": "Tries", "value": 2}],
        });
        let post = json!({"id": "a", "message": "", "props": {"attachments": [attachment]}});
        let (html, _) = html(post);
        for part in [
            "Build",
            "<a href=\"https://ci.example/7\"><strong>#7</strong></a>",
            "<strong>green</strong>",
            "<strong>Branch</strong>: main",
            "<strong>Tries</strong>: 2",
        ] {
            assert!(html.contains(part), "{part} is missing in {html}");
        }
    }

    #[test]
    fn nothing_that_people_see_of_an_attachment_vanishes() {
        let picture = "<a href=\"https://x.example/cat.png\">image</a>";
        for (attachment, shown) in [
            (json!({"image_url": "https://x.example/cat.png"}), picture),
            (
                json!({"thumb_url": "https://x.example/cat.png"}),
                "<a href=\"https://x.example/cat.png\">thumbnail</a>",
            ),
            (
                json!({"author_name": "Ann", "footer": "sent *late*", "fallback": "-"}),
                "<p>Ann</p><p>sent <em>late</em></p>",
            ),
            (
                json!({"author_name": "Ann", "author_link": "https://x.example/ann"}),
                "<a href=\"https://x.example/ann\">Ann</a>",
            ),
            (
                json!({"footer": "late", "text": "hi", "author_name": "Ann", "title": "T", "pretext": "p",
                    "image_url": "https://x.example/cat.png", "fields": [{"title": "", "value": 2}]}),
                &format!(
                    "<p>p</p><p>Ann</p><p><strong>T</strong></p><p>hi</p><p>2</p><p>{picture}</p><p>late</p>"
                ),
            ),
            (
                json!({"actions": [{"name": "Yes", "type": "button"}, {"name": " "}, {"id": 4}, {"name": "No"}]}),
                "(buttons: Yes, No)",
            ),
            (json!({"image_url": "data:x", "actions": 3}), "image"),
            (json!({"fallback": "only this"}), "only this"),
        ] {
            let props = json!({"attachments": [attachment]});
            assert_eq!(
                html(json!({"id": "a", "message": "", "props": props})).0,
                shown
            );
        }
    }

    #[test]
    fn pictures_of_the_server_are_links_to_it() {
        let server = "https://chat.example/".parse().unwrap();
        let who = PostAuthor {
            server: Some(&server),
            ..PostAuthor::from("Bob")
        };
        let value = json!({"id": "a", "message": "![cat](/api/v4/files/f1)", "edit_at": 1, "props": {"attachments": [
            {"text": "![](/static/dog.png)", "image_url": "/static/cow.png"}]}});
        let (place, said) = (Place::new("mm", "c"), read(value));
        for arrival in [post(&place, &said, who), edit(&place, &said, who)] {
            let ArrivalContent::Message(message) = arrival.payload else {
                panic!("somebody said something");
            };
            let (Action::Post { body, .. } | Action::Edit { body, .. }) = message.action else {
                panic!("a text");
            };
            let plain = "cat (https://chat.example/api/v4/files/f1)\n\nhttps://chat.example/static/dog.png\n\n\
                image (https://chat.example/static/cow.png)";
            assert_eq!(body.to_plain(), plain);
        }
    }

    #[test]
    fn a_file_comes_with_its_text_or_alone() {
        let files = json!({"files": [{"id": "f1", "name": "cat.png", "size": 2_000_000, "mime_type": "image/png",
                "width": 3, "height": 2}]});
        for text in ["", "look"] {
            let said = spoken(json!({"id": "a", "message": text, "metadata": files}));
            let [file] = said.files.as_slice() else {
                panic!("one file");
            };
            assert_eq!(file.in_words(), "an image: cat.png (2.0 MB)");
            assert_eq!(
                (file.source.as_str(), file.dimensions),
                ("f1", Some((3, 2)))
            );
            let Action::Post { body, .. } = said.action else {
                panic!("a post");
            };
            assert_eq!(body.to_plain(), text);
        }
    }

    #[test]
    fn c04_a_mention_is_a_whole_username() {
        let post = json!({"id": "a", "message": "@ann.b. and a@b.c, (@bob) `@all` @ @-"});
        let Action::Post { mut body, .. } = spoken(post).action else {
            panic!("a post");
        };
        assert_eq!(body.to_plain(), "@ann.b. and a@b.c, (@bob) @all @ @-");
        let mut called = Vec::new();
        body.visit_runs(&mut |line| {
            for inline in line {
                if let Inline::Mention { id, .. } = inline {
                    called.push(id.clone());
                }
            }
        });
        assert_eq!(called, ["ann.b", "bob"]);
    }

    #[test]
    fn b15_a_name_of_its_own_is_believed_of_a_bot_and_a_claim_of_anybody_else() {
        let value = json!({"id": "a", "user_id": "u", "message": "x",
            "props": {"override_username": " GitHub ", "from_webhook": "true"}});
        let shown = |is_bot| {
            let who = PostAuthor {
                name: "Mallory",
                picture: Some("u/1"),
                is_bot,
                server: None,
            };
            match post(&Place::new("mm", "c"), &read(value.clone()), who).payload {
                ArrivalContent::Message(message) => message.sender,
                _ => panic!("somebody said something"),
            }
        };
        let sender = shown(true);
        assert_eq!(
            (sender.id.as_str(), sender.name.as_str()),
            ("u/GitHub", "GitHub")
        );
        let sender = shown(false);
        assert_eq!(
            (sender.id.as_str(), sender.name.as_str()),
            ("u", "Mallory (as GitHub)")
        );
        assert_eq!(sender.avatar, None);
    }

    #[test]
    fn b15_nothing_is_asked_of_the_bridge_by_a_webhook_or_under_another_name() {
        let asked = |props: Value| {
            let value =
                json!({"id": "a", "user_id": "u", "message": "!bridge pause", "props": props});
            match post(&Place::new("mm", "c"), &read(value), "Mallory").payload {
                ArrivalContent::Command(command) => Some(command.sender.id),
                _ => None,
            }
        };
        assert_eq!(asked(json!({})).as_deref(), Some("u"));
        for props in [
            json!({"override_username": "Ann"}),
            json!({"from_webhook": "true"}),
            json!({"from_webhook": true}),
            json!({"from_plugin": "true"}),
        ] {
            assert_eq!(asked(props), None);
        }
    }
}
