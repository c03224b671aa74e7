//! Prints the conversation line by line: what was written, how it looks on the other side, and next to it what the
//! homeserver stores.

use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use footbridge_simulators::gitter;
use footbridge_testbed::console::{Console, clip};
use footbridge_testbed::report::short;
use footbridge_testbed::scenario::{Scenario, until};
use footbridge_testbed::synapse::Synapse;

/// How long one line may take to be relayed.
const TIMEOUT: Duration = Duration::from_mins(1);

/// Sends messages and prints them, line by line.
pub struct Talk<'a> {
    pub scene: &'a Scenario,
    pub synapse: &'a Synapse,
    pub console: &'a Console,
}

/// A line of the channel and its copy in the room.
pub struct CopiedLine {
    message: String,
    event: String,
}

impl Talk<'_> {
    /// Ann sends a message in the room; returns its event id.
    pub async fn ann(&self, key: &str, text: &str) -> anyhow::Result<String> {
        let began = Instant::now();
        self.scene.from_room.count(key);
        let event = self.scene.ann.say(&self.scene.stage.room, text).await?;
        self.print_line("Ann, in the room", text);
        let shown = self.shown_in_channel(key).await?;
        let took = began.elapsed();
        self.stored(&event).await?;
        self.copied("in the channel", &shown, took);
        Ok(event)
    }

    /// Ann edits her message.
    pub async fn ann_edits(&self, event: &str, key: &str, text: &str) -> anyhow::Result<()> {
        let began = Instant::now();
        let edit = self
            .scene
            .ann
            .edit(&self.scene.stage.room, event, text)
            .await?;
        self.print_line("Ann corrects it", text);
        let shown = self.shown_in_channel(key).await?;
        let took = began.elapsed();
        self.stored(&edit).await?;
        self.copied("in the channel", &shown, took);
        Ok(())
    }

    /// A user sends a message in the channel.
    pub async fn in_channel(
        &self,
        who: &gitter::User,
        key: &str,
        text: &str,
    ) -> anyhow::Result<CopiedLine> {
        let began = Instant::now();
        self.scene.from_channel.count(key);
        let message = self
            .scene
            .sim
            .say(&self.scene.stage.channel.id, &who.id, text);
        self.print_line(&format!("@{}, in the channel", who.username), text);
        let find = || {
            let mut found = self.scene.in_room(|heard, text| {
                text.contains(key)
                    .then(|| (heard.seen.event_id.clone(), text.to_owned()))
            });
            found.pop()
        };
        until(TIMEOUT, || find().is_some())
            .await
            .context("this line was not relayed to the room")?;
        let (event, shown) = find().context("this line was removed from the room")?;
        let took = began.elapsed();
        self.stored(&event).await?;
        self.copied("in the room", &shown, took);
        Ok(CopiedLine {
            message: message.id,
            event,
        })
    }

    /// A user deletes a message in the channel.
    pub async fn is_deleted(&self, who: &gitter::User, line: &CopiedLine) -> anyhow::Result<()> {
        let began = Instant::now();
        let channel = &self.scene.stage.channel.id;
        let deleted = self.scene.sim.delete(channel, &line.message);
        deleted.map_err(|refusal| anyhow!("{refusal}"))?;
        self.print_line(&format!("@{} deletes it", who.username), "");
        let find = || {
            let mut found = self
                .scene
                .room_observer
                .pick(&self.scene.stage.room, |heard| {
                    let redacts = heard.seen.content.get("redacts")?;
                    (redacts == line.event.as_str()).then(|| heard.seen.event_id.clone())
                });
            found.pop()
        };
        until(TIMEOUT, || find().is_some())
            .await
            .context("the deletion was not relayed to the room")?;
        let redaction = find().context("the redaction was removed from the room")?;
        let took = began.elapsed();
        self.stored(&redaction).await?;
        self.copied("in the room", "(deleted)", took);
        Ok(())
    }

    async fn shown_in_channel(&self, key: &str) -> anyhow::Result<String> {
        let find = || {
            let messages = self.scene.in_channel();
            messages
                .into_iter()
                .find(|message| message.text.contains(key))
        };
        until(TIMEOUT, || find().is_some())
            .await
            .context("this line was not relayed to the channel")?;
        Ok(find()
            .context("this line was removed from the channel")?
            .text)
    }

    fn print_line(&self, who: &str, text: &str) {
        self.row(
            &self.console.strong(&format!("{who:<22}")),
            &clip(text, 66),
            "",
        );
    }

    fn copied(&self, place: &str, text: &str, took: Duration) {
        let took = format!("+{}", short(Some(took)));
        self.row(&format!("{place:>20}  "), &clip(text, 66), &took);
        self.console.line("");
    }

    /// Prints the event as it is in the homeserver's database.
    async fn stored(&self, event: &str) -> anyhow::Result<()> {
        let events = self.synapse.events(&self.scene.stage.room).await?;
        let stored = events.iter().find(|stored| stored.event_id == event);
        let stored = stored.context("the homeserver does not have this event")?;
        let content = |field: &str| {
            let value = stored
                .json
                .get("content")
                .and_then(|content| content.get(field)?.as_str());
            value.unwrap_or_default().to_owned()
        };
        let text = format!(
            "{} {} {}",
            stored.event_type,
            content("algorithm"),
            content("ciphertext")
        );
        let place = format!("{:>20}  ", "on the homeserver");
        self.row(
            &self.console.faint(&place),
            &self.console.faint(&clip(text.trim_end(), 66)),
            "",
        );
        Ok(())
    }

    /// 2 + 22 + 66 + 10 columns.
    fn row(&self, head: &str, text: &str, tail: &str) {
        let gap = " ".repeat(66_usize.saturating_sub(visible(text)));
        self.console
            .line(format!("  {head}{text}{gap}{tail:>10}").trim_end());
    }
}

/// How many columns a text takes, without its style codes.
fn visible(text: &str) -> usize {
    let mut columns = 0;
    let mut hidden = false;
    for character in text.chars() {
        match character {
            '\x1b' => hidden = true,
            'm' if hidden => hidden = false,
            _ if hidden => {}
            _ => columns += 1,
        }
    }
    columns
}
