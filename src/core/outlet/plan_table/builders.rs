//! What the deliveries of the table are made of.

use footbridge_store::{Copy, Millis, Place, RemoteId};

use crate::{
    file::{File, Kind},
    message::{Action, Message, Sender, Style},
    outlet::Outgoing,
    text::Body,
};

/// The moment at which the deliveries are planned.
pub const NOW: Millis = Millis(1_795_349_191_632);

pub(super) fn outgoing(action: Action) -> Outgoing {
    Outgoing {
        key: "k".to_owned(),
        to: Place::new("there", "room"),
        message: Message {
            sender: Sender {
                id: "@ann:example.org".to_owned(),
                name: "Ann".to_owned(),
                avatar: Some("mxc://x/ann".to_owned()),
            },
            sent_at: Millis(1),
            action,
            files: Vec::new(),
        },
        copies: Vec::new(),
        permalink: None,
        late: false,
    }
}

pub(super) fn post(text: &str) -> Outgoing {
    outgoing(Action::Post {
        body: Body::plain(text),
        style: Style::Text,
        reply_to: None,
        thread: None,
    })
}

pub(super) fn edit(text: &str) -> Outgoing {
    outgoing(Action::Edit {
        target: RemoteId::from("$event"),
        body: Body::plain(text),
        style: Style::Text,
    })
}

pub(super) fn long(words: usize) -> String {
    let words: Vec<String> = (0..words).map(|number| format!("w{number}")).collect();
    words.join(" ")
}

pub(super) fn styled(mut outgoing: Outgoing, new: Style) -> Outgoing {
    if let Action::Post { style, .. } | Action::Edit { style, .. } = &mut outgoing.message.action {
        *style = new;
    }
    outgoing
}

pub(super) fn late(outgoing: Outgoing) -> Outgoing {
    Outgoing {
        late: true,
        ..outgoing
    }
}

pub(super) fn by(id: &str, name: &str, mut outgoing: Outgoing) -> Outgoing {
    outgoing.message.sender = Sender {
        id: id.to_owned(),
        name: name.to_owned(),
        avatar: None,
    };
    outgoing
}

pub(super) fn reply(mut outgoing: Outgoing) -> Outgoing {
    if let Action::Post { reply_to, .. } = &mut outgoing.message.action {
        *reply_to = Some(RemoteId::from("$event"));
    }
    outgoing
}

pub(super) fn in_thread(mut outgoing: Outgoing) -> Outgoing {
    if let Action::Post { thread, .. } = &mut outgoing.message.action {
        *thread = Some(RemoteId::from("$root"));
    }
    outgoing
}

pub(super) fn with(outgoing: Outgoing, copies: impl Into<Vec<Copy>>) -> Outgoing {
    let copies = copies.into();
    let first = copies.first();
    Outgoing {
        permalink: first.map(|copy| format!("https://x.example/{}", copy.remote)),
        copies,
        ..outgoing
    }
}

pub(super) fn files_of(mut outgoing: Outgoing, files: impl Into<Vec<File>>) -> Outgoing {
    outgoing.message.files = files.into();
    outgoing
}

pub(super) fn sent(name: &str, size: u64) -> File {
    File {
        name: name.to_owned(),
        kind: if name.contains("png") {
            Kind::Image
        } else {
            Kind::Other
        },
        size: Some(size),
        source: format!("files/{name}"),
        ..File::default()
    }
}

/// A copy that is a minute old, and of which nobody knows what it carries.
pub(super) fn copy(id: &str) -> Copy {
    Copy {
        remote: RemoteId::from(id),
        thread: None,
        sent_at: Millis(NOW.0 - 60_000),
        file: None,
    }
}

pub(super) fn old(id: &str) -> Copy {
    Copy {
        sent_at: Millis(0),
        ..copy(id)
    }
}

pub(super) fn threaded(id: &str, root: &str) -> Copy {
    Copy {
        thread: Some(RemoteId::from(root)),
        ..copy(id)
    }
}

pub(super) fn text_copy(id: &str) -> Copy {
    Copy {
        file: Some(String::new()),
        ..copy(id)
    }
}

pub(super) fn file_copy(id: &str, name: &str) -> Copy {
    Copy {
        file: Some(sent(name, 0).digest()),
        ..copy(id)
    }
}
