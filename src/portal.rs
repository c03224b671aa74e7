//! Takes the head of one lane, sends it, settles it.
