//! Counted messages, each with a mark that nobody would write by accident and a number, so that both ends can be
//! compared and texts can be searched for in files. Lines of a conversation can be counted with them.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rand::Rng as _;

use crate::report::Said;

/// The messages of one direction of one run.
pub struct Load {
    mark: String,
    said: Mutex<Vec<(Said, String)>>,
}

impl Load {
    /// A load with a new mark, which begins with `letter`.
    #[must_use]
    pub fn new(letter: char) -> Self {
        let mut dice = rand::rng();
        let mut mark = letter.to_string();
        // Letters only, so that neither side can read it as markup, an emoji or a link.
        mark.extend((0..11).map(|_| char::from(dice.random_range(b'a'..=b'z'))));
        Self {
            mark,
            said: Mutex::default(),
        }
    }

    /// The mark, which every numbered text of this load contains.
    #[must_use]
    pub fn mark(&self) -> &str {
        &self.mark
    }

    /// The text of the next numbered message, which counts as sent from now on.
    pub fn number(&self) -> String {
        let mut said = self.lock();
        let key = format!("{}{:05}", self.mark, said.len());
        let text = format!("{key} says the one who counts");
        push(&mut said, key);
        text
    }

    /// Counts a line of a conversation as sent now. It is recognised by `key`: plain words that occur in no other line,
    /// and that the bridge has no reason to change.
    pub fn count(&self, key: &str) {
        push(&mut self.lock(), key.to_owned());
    }

    /// Every message sent so far.
    #[must_use]
    pub fn said(&self) -> Vec<Said> {
        self.lock().iter().map(|(said, _)| *said).collect()
    }

    /// The number of the message of this load that a text contains, whatever the bridge added.
    #[must_use]
    pub fn number_in(&self, text: &str) -> Option<u32> {
        if let Some((_, after)) = text.split_once(&self.mark) {
            return after.get(..5)?.parse().ok();
        }
        let said = self.lock();
        said.iter()
            .find(|(_, key)| text.contains(key))
            .map(|(said, _)| said.number)
    }

    /// The numbers of all messages of this load that a text contains: one event may carry several.
    #[must_use]
    pub fn numbers_in(&self, text: &str) -> Vec<u32> {
        let after_marks = text.split(self.mark.as_str()).skip(1);
        let numbers: Vec<u32> = after_marks
            .filter_map(|after| after.get(..5)?.parse().ok())
            .collect();
        if numbers.is_empty() {
            return self.number_in(text).into_iter().collect();
        }
        numbers
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Said, String)>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn push(said: &mut Vec<(Said, String)>, key: String) {
    let number = u32::try_from(said.len()).unwrap_or(u32::MAX);
    said.push((
        Said {
            number,
            at: Instant::now(),
        },
        key,
    ));
}

#[cfg(test)]
mod tests {
    use super::Load;

    #[test]
    fn several_messages_in_one_text_are_all_found() {
        let load = Load::new('c');
        let text = format!("Ann: {}\n{}", load.number(), load.number());
        assert_eq!(load.numbers_in(&text), [0, 1]);
        assert!(load.numbers_in("nothing").is_empty());
    }

    #[test]
    fn a_message_is_known_again_whatever_surrounds_it() {
        let load = Load::new('r');
        let first = load.number();
        load.count("a fine day");
        let third = load.number();
        assert_eq!(load.number_in(&format!("**Ann**: {first}")), Some(0));
        assert_eq!(load.number_in("Ann: what a fine day!"), Some(1));
        assert_eq!(load.number_in(&third), Some(2));
        let both = format!("Mary: {third}\nTom: {first}");
        assert_eq!(load.numbers_in(&both), [2, 0]);
        assert_eq!(load.numbers_in("nothing of ours"), Vec::<u32>::new());
        assert_eq!(load.number_in("nothing of ours"), None);
        assert_eq!(Load::new('r').number_in(&first), None);
        assert_eq!(load.said().len(), 3);
    }
}
