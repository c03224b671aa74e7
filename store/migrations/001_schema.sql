-- The schema of the store. It keeps the ids of events and users as their networks write them; a table that keeps a person
-- only as a keyed hash says so. Sealed columns hold a nonce and a ciphertext that only the store's key opens. Times are
-- milliseconds since 1970, given by the caller unless a comment says otherwise. AUTOINCREMENT keeps a deleted row's number
-- from being used again.
--
-- A place is one Matrix room or one channel, written `network:address`. A portal links a room and a channel. A lane is one
-- portal in one direction. An entry is a row of `journal`.


-- Store

-- One value of the store itself: the key check, the epoch.
CREATE TABLE meta (
    name  TEXT PRIMARY KEY NOT NULL,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;


-- Portals and control

-- One portal. A row is never deleted: counters and pending deliveries refer to it.
CREATE TABLE portal (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    room_place       TEXT    NOT NULL,
    channel_place    TEXT    NOT NULL,
    room             TEXT    NOT NULL, -- room alias or id as the configuration names it
    silo             TEXT    NOT NULL, -- name of the silo in the configuration
    channel          TEXT    NOT NULL, -- name of the channel in the silo
    active           INTEGER NOT NULL CHECK (active IN (0, 1)),
    source           TEXT    NOT NULL  -- who made it; 'management': a management room, linked to no channel
        CHECK (source IN ('config', 'operator', 'chat', 'management')),
    seen_unencrypted INTEGER NOT NULL DEFAULT 0 CHECK (seen_unencrypted IN (0, 1)), -- the room was unencrypted after the link
    linked_at        INTEGER NOT NULL, -- when it was last made active
    linked_after     INTEGER NOT NULL, -- newest entry at that time; older entries do not pass the portal
    UNIQUE (room_place, channel_place)
) STRICT;

-- One portal whose encrypted room consented to relaying.
CREATE TABLE consent (
    portal_id    INTEGER PRIMARY KEY REFERENCES portal (id),
    given_by     TEXT    NOT NULL, -- user id
    given_at     INTEGER NOT NULL,
    text_version INTEGER NOT NULL, -- version of the disclosure that the user read
    effective_at INTEGER NOT NULL, -- end of the delay; earlier messages are not relayed
    active       INTEGER NOT NULL DEFAULT 0 CHECK (active IN (0, 1)) -- all events from before the end of the delay arrived
) STRICT;

-- One reason that holds a portal in both directions. Its deliveries stay pending.
CREATE TABLE portal_hold (
    portal_id INTEGER NOT NULL REFERENCES portal (id),
    reason    TEXT    NOT NULL CHECK (reason IN ('paused', 'upgraded')),
    since     INTEGER NOT NULL,
    held_by   TEXT    NOT NULL, -- user who paused it, or sender of the tombstone
    PRIMARY KEY (portal_id, reason)
) STRICT, WITHOUT ROWID;

-- One portal that a user requested in a chat and that is not confirmed yet.
CREATE TABLE portal_request (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    room_place    TEXT    NOT NULL,
    channel_place TEXT    NOT NULL,
    room          TEXT    NOT NULL, -- the names, as in `portal`
    silo          TEXT    NOT NULL,
    channel       TEXT    NOT NULL,
    requested_by  TEXT    NOT NULL, -- user id
    requested_in  TEXT    NOT NULL, -- place that gets the answer
    code          TEXT    NOT NULL, -- code that the user must post in the channel
    expires_at    INTEGER NOT NULL,
    confirmed_at  INTEGER,          -- when the code was seen; the consent of an encrypted room may still be missing
    UNIQUE (room_place, channel_place)
) STRICT;

-- One portal that the operator added on the command line. The running bridge resolves the names.
CREATE TABLE operator_portal (
    room     TEXT    NOT NULL,
    silo     TEXT    NOT NULL,
    channel  TEXT    NOT NULL,
    added_at INTEGER NOT NULL,
    PRIMARY KEY (room, silo, channel)
) STRICT, WITHOUT ROWID;

-- One portal from one place whose messages do not pass it yet: events from before the link may still arrive there. A later
-- barrier has a greater id.
CREATE TABLE link_barrier (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    portal_id INTEGER NOT NULL REFERENCES portal (id),
    place     TEXT    NOT NULL,
    UNIQUE (portal_id, place)
) STRICT;

-- One room with a tombstone, until the bridge follows it or an operator decides.
CREATE TABLE room_upgrade (
    room_place     TEXT    PRIMARY KEY NOT NULL,
    successor      TEXT    NOT NULL, -- room id
    sender         TEXT    NOT NULL, -- user id
    seen_at        INTEGER NOT NULL,
    refusal_reason TEXT              -- why the bridge does not follow
) STRICT, WITHOUT ROWID;

-- One room whose invite the bridge refused because no portal named it. Only the newest rows are kept; `status` lists them.
CREATE TABLE refused_invite (
    room       TEXT NOT NULL PRIMARY KEY,
    refused_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- One person whose messages are not relayed.
CREATE TABLE opt_out (
    person_hash TEXT    NOT NULL, -- keyed hash of network and user
    place       TEXT    NOT NULL, -- '': every place of the network
    since       INTEGER NOT NULL,
    PRIMARY KEY (person_hash, place)
) STRICT, WITHOUT ROWID;

-- One person who joined the room of a portal.
CREATE TABLE newcomer (
    portal_id   INTEGER NOT NULL REFERENCES portal (id),
    person_hash TEXT    NOT NULL, -- keyed hash of network and user
    notified_at INTEGER,          -- when the bridge last said in the room where its messages go; null: not since the join
    PRIMARY KEY (portal_id, person_hash)
) STRICT, WITHOUT ROWID;

-- One account in a channel that a member of a linked room claims to be another bridge's.
CREATE TABLE peer_account (
    place         TEXT NOT NULL,
    claimant_hash TEXT NOT NULL, -- keyed hash of the member; one claim per member and channel
    account_hash  TEXT NOT NULL, -- keyed hash of the account
    PRIMARY KEY (place, claimant_hash)
) STRICT, WITHOUT ROWID;


-- Events

-- One event that the bridge accepted, or one notice of its own. Each is accepted once.
CREATE TABLE journal (
    id                     INTEGER PRIMARY KEY AUTOINCREMENT,
    place                  TEXT    NOT NULL, -- where it happened; 'bridge:notice': a notice of the bridge
    event_id               TEXT    NOT NULL,
    accepted_at            INTEGER NOT NULL,
    payload                BLOB,             -- sealed; null as soon as no delivery, retry or command needs it
    missing_session        TEXT,             -- id of the session whose room key is missing; the payload is then the raw event
    key_wait_until         INTEGER,          -- until when lanes wait for that room key; afterwards other entries pass
    key_waited_ms          INTEGER NOT NULL DEFAULT 0, -- for how long the bridge has run while the room key was missing
    undecryptable_group_id INTEGER REFERENCES undecryptable_group (id), -- set as soon as people were notified of it
    target                 TEXT,             -- event id of the message that it edits or redacts; only while the payload exists
    text_of_edit           INTEGER REFERENCES journal (id), -- edit whose text the payload has; null: the message's own text
    UNIQUE (place, event_id),
    CHECK ((missing_session IS NULL) = (key_wait_until IS NULL)),
    CHECK (missing_session IS NULL OR payload IS NOT NULL)
) STRICT;

CREATE INDEX journal_missing_session ON journal (missing_session) WHERE missing_session IS NOT NULL;
CREATE INDEX journal_undecryptable_group ON journal (undecryptable_group_id)
    WHERE missing_session IS NOT NULL AND undecryptable_group_id IS NOT NULL;
CREATE INDEX journal_target ON journal (place, target) WHERE target IS NOT NULL;

-- One command to the bridge that has no answer yet. The entry's payload is the command.
CREATE TABLE command (
    entry_id INTEGER PRIMARY KEY REFERENCES journal (id)
) STRICT;

-- Newest message of one author in one place.
CREATE TABLE last_message (
    place       TEXT NOT NULL,
    author_hash TEXT NOT NULL, -- keyed hash of place and author
    entry_id    INTEGER NOT NULL REFERENCES journal (id),
    PRIMARY KEY (place, author_hash)
) STRICT, WITHOUT ROWID;


-- Deliveries

-- One pending delivery of an entry to a place. The row is deleted when the delivery ends, so the table is the backlog.
CREATE TABLE outbox (
    id                    INTEGER PRIMARY KEY AUTOINCREMENT,
    entry_id              INTEGER NOT NULL REFERENCES journal (id),
    portal_id             INTEGER NOT NULL REFERENCES portal (id),
    toward                TEXT    NOT NULL CHECK (toward IN ('matrix', 'silo')),
    to_place              TEXT    NOT NULL,
    from_place            TEXT    NOT NULL, -- where its route begins: the entry's place, or the place that a notice is about
    transaction_key       TEXT    NOT NULL, -- keyed hash of event and target; fixed before the first attempt
    plan                  BLOB,             -- sealed; made once
    steps_done            INTEGER NOT NULL DEFAULT 0, -- steps of the plan
    attempts              INTEGER NOT NULL DEFAULT 0, -- failed attempts of the present step
    total_attempts        INTEGER NOT NULL DEFAULT 0, -- failed attempts of all steps, also from before it was parked
    last_attempt_at       INTEGER,          -- when the present step last failed
    retry_at              INTEGER NOT NULL DEFAULT 0, -- the lane does not try it before
    last_error            TEXT,             -- kind of the last error, a fixed word
    rejections            INTEGER NOT NULL DEFAULT 0, -- permanent errors of the present step that concern this message alone
    blame_ms              INTEGER NOT NULL DEFAULT 0, -- how long the present step has failed while the other side worked
    outcome_unknown_since INTEGER,          -- since when it is unknown whether the present step happened
    unanswered_since      INTEGER,          -- first attempt of the present step without an answer; the place deduplicates
    accepted_at           INTEGER NOT NULL,
    late                  INTEGER NOT NULL DEFAULT 0 CHECK (late IN (0, 1)),     -- later entries may have passed it
    urgent                INTEGER NOT NULL DEFAULT 0 CHECK (urgent IN (0, 1)),   -- a notice that precedes the backlog
    bundle_leader_id      INTEGER,          -- delivery whose message carries this one too; null: itself
    bundle_slot           INTEGER,          -- position in a bundled message; null: not bundled
    sender_id             INTEGER REFERENCES account (id), -- personal account that attempts the present step; null: the relay
    relay_chosen          INTEGER NOT NULL DEFAULT 0 CHECK (relay_chosen IN (0, 1)), -- although a personal account could have been
    UNIQUE (entry_id, to_place)
) STRICT;

CREATE INDEX outbox_lane ON outbox (portal_id, toward, id);
-- A lane finishes a started delivery before an older one whose room key arrived late.
CREATE INDEX outbox_started ON outbox (portal_id, toward, id)
    WHERE steps_done > 0 OR outcome_unknown_since IS NOT NULL;
CREATE INDEX outbox_outcome_unknown ON outbox (to_place) WHERE outcome_unknown_since IS NOT NULL;
CREATE INDEX outbox_bundle_leader ON outbox (bundle_leader_id) WHERE bundle_leader_id IS NOT NULL;
CREATE INDEX outbox_urgent ON outbox (portal_id, toward, id) WHERE urgent = 1;
CREATE INDEX outbox_source ON outbox (portal_id, toward, from_place, id);
CREATE INDEX outbox_sender ON outbox (sender_id) WHERE sender_id IS NOT NULL;

-- One delivery that failed, and its state since. The journal keeps the payload while the row is retryable. The row stays as
-- long as the links.
CREATE TABLE parked_delivery (
    id               INTEGER PRIMARY KEY, -- id of the delivery in `outbox`, before and after a retry
    entry_id         INTEGER NOT NULL REFERENCES journal (id),
    portal_id        INTEGER NOT NULL REFERENCES portal (id),
    toward           TEXT    NOT NULL CHECK (toward IN ('matrix', 'silo')),
    to_place         TEXT    NOT NULL,
    from_place       TEXT    NOT NULL,
    transaction_key  TEXT    NOT NULL,
    bundle_key       TEXT,             -- transaction key of the bundle that it was last sent with, perhaps
    bundle_slot      INTEGER,          -- which part of that it was
    sender_id        INTEGER REFERENCES account (id), -- as in `outbox`
    plan             BLOB,             -- sealed as in `outbox`
    steps_done       INTEGER NOT NULL,
    accepted_at      INTEGER NOT NULL,
    total_attempts   INTEGER NOT NULL,
    failed_at        INTEGER NOT NULL,
    error_kind       TEXT    NOT NULL, -- kind of the last error, a fixed word
    reason           TEXT    NOT NULL, -- one sentence without message text
    target           TEXT,             -- event id, in its own place, of the message that it would have edited or redacted
    outcome_unknown  INTEGER NOT NULL CHECK (outcome_unknown IN (0, 1)), -- its present step may have happened
    state            TEXT    NOT NULL CHECK (state IN ('failed', 'retrying', 'delivered', 'skipped')),
    retryable        INTEGER NOT NULL CHECK (retryable IN (0, 1)),
    unreported       INTEGER NOT NULL CHECK (unreported IN (0, 1)), -- no status notice reports it yet
    status_notice_id TEXT REFERENCES status_notice (notice_id),
    UNIQUE (entry_id, to_place),
    CHECK (retryable = 0 OR state = 'failed')
) STRICT;

CREATE INDEX parked_delivery_retryable ON parked_delivery (portal_id, toward, failed_at) WHERE retryable = 1;
CREATE INDEX parked_delivery_lane ON parked_delivery (portal_id, toward, failed_at);
CREATE INDEX parked_delivery_unreported ON parked_delivery (id) WHERE unreported = 1;
CREATE INDEX parked_delivery_status_notice ON parked_delivery (status_notice_id) WHERE status_notice_id IS NOT NULL;

-- One delivery that ended by a rule. `why` answers with the rule.
CREATE TABLE skipped_delivery (
    entry_id INTEGER NOT NULL REFERENCES journal (id),
    to_place TEXT    NOT NULL,
    rule     TEXT    NOT NULL,
    PRIMARY KEY (entry_id, to_place)
) STRICT, WITHOUT ROWID;

-- Counters of one lane. At every commit: accepted = delivered + failed + skipped + rows in `outbox`.
CREATE TABLE lane_counter (
    portal_id INTEGER NOT NULL REFERENCES portal (id),
    toward    TEXT    NOT NULL CHECK (toward IN ('matrix', 'silo')),
    accepted  INTEGER NOT NULL DEFAULT 0,
    delivered INTEGER NOT NULL DEFAULT 0,
    failed    INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (portal_id, toward)
) STRICT, WITHOUT ROWID;

-- How many deliveries of one lane ended by one rule.
CREATE TABLE lane_skip_counter (
    portal_id INTEGER NOT NULL,
    toward    TEXT    NOT NULL,
    rule      TEXT    NOT NULL,
    count     INTEGER NOT NULL,
    PRIMARY KEY (portal_id, toward, rule),
    FOREIGN KEY (portal_id, toward) REFERENCES lane_counter (portal_id, toward)
) STRICT, WITHOUT ROWID;

-- One lane whose place denies access to the bridge's account, or denied it at the last attempt before `opened_at`.
CREATE TABLE closed_lane (
    portal_id        INTEGER NOT NULL REFERENCES portal (id),
    toward           TEXT    NOT NULL CHECK (toward IN ('matrix', 'silo')),
    since            INTEGER NOT NULL,
    reason           TEXT    NOT NULL,
    opened_at        INTEGER,
    status_notice_id TEXT REFERENCES status_notice (notice_id),
    PRIMARY KEY (portal_id, toward)
) STRICT, WITHOUT ROWID;


-- Copies of messages

-- One event or message that is an entry in a place: the original or a copy. A row stays after its copy was deleted, so that
-- the bridge still recognises a late echo of the copy as its own.
CREATE TABLE link (
    place       TEXT    NOT NULL,
    remote_id   TEXT    NOT NULL, -- id in its network
    bundle_slot INTEGER NOT NULL DEFAULT -1, -- position in a bundled message; -1: the message carries this entry alone
    entry_id    INTEGER NOT NULL REFERENCES journal (id),
    part        INTEGER NOT NULL, -- number of the copy among the entry's copies in the place
    thread      TEXT,             -- id of the first message of its thread
    sent_at     INTEGER NOT NULL, -- by the clock of its network
    author_hash TEXT,             -- keyed hash of message and author, to check an edit's sender; null: unknown or not needed
    file_digest TEXT,             -- digest of the location of the file that it carries; '': text; null: unknown
    replaces    TEXT,             -- copy whose text this event replaces; null: a message. A replacement is deleted with its
                                  -- message, and no edit changes it
    text_of     INTEGER REFERENCES journal (id), -- edit whose text or file it contains; null: the message's own
    deleted     INTEGER NOT NULL DEFAULT 0 CHECK (deleted IN (0, 1)),
    removed_by_others INTEGER NOT NULL DEFAULT 0 CHECK (removed_by_others IN (0, 1)), -- a moderator deleted it: no edit of the
                                  -- message posts its part again
    emptied     INTEGER NOT NULL DEFAULT 0 CHECK (emptied IN (0, 1)),   -- deleted by an empty text, because replies refer to it
    leftover    INTEGER NOT NULL DEFAULT 0 CHECK (leftover IN (0, 1)),  -- emptied, but part of the content is still visible,
                                  -- because the network cannot remove it without the replies; deleted with the message
    owner_id    INTEGER REFERENCES account (id), -- personal account that sent the copy, and alone may edit it; null: the relay
    PRIMARY KEY (place, remote_id, bundle_slot),
    UNIQUE (entry_id, place, part)
) STRICT, WITHOUT ROWID;

CREATE INDEX link_replaces ON link (place, replaces) WHERE replaces IS NOT NULL;

-- Digests of one event that the bridge sent and reads back before it edits it. No text is kept.
CREATE TABLE event_digest (
    place       TEXT NOT NULL,
    event_id    TEXT NOT NULL,
    digest      TEXT NOT NULL, -- keyed digest of the content
    next_digest TEXT,          -- the same of the last edit, whose outcome may be unknown
    PRIMARY KEY (place, event_id)
) STRICT, WITHOUT ROWID;

-- One message that the other side deletes with the root of its thread. The bridge writes the row before its request, because
-- the answer may be lost, and the deletions must not count as those of a user.
CREATE TABLE cascade_deletion (
    place       TEXT    NOT NULL,
    thread_root TEXT    NOT NULL, -- message that the bridge deletes
    event_id    TEXT    NOT NULL, -- message that is deleted with it, or the root itself
    until       INTEGER NOT NULL, -- when the last of them was sent; messages sent later are deleted too
    delivery_id INTEGER NOT NULL, -- delivery that deletes the root
    PRIMARY KEY (place, thread_root, event_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX cascade_deletion_delivery ON cascade_deletion (delivery_id);

-- One person's reaction to a message, for one place that shows it. The bridge's account reacts for many people: its own
-- reaction or summary line stays until the last of these rows is removed.
CREATE TABLE reaction (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    target_id     INTEGER NOT NULL REFERENCES journal (id), -- the message
    to_place      TEXT    NOT NULL, -- place that shows it
    reactor_hash  TEXT    NOT NULL, -- keyed hash of person and emoji
    entry_id      INTEGER NOT NULL REFERENCES journal (id), -- the reaction event
    changed_by    INTEGER NOT NULL, -- entry that last changed the row
    payload       BLOB    NOT NULL, -- sealed: emoji and person
    removed       INTEGER NOT NULL DEFAULT 0 CHECK (removed IN (0, 1)), -- the person redacted it
    shown_hash    TEXT,             -- keyed hash of the id of the reaction or summary line; one row has it for all
    shown_payload BLOB,             -- sealed: that id; in some networks it contains the emoji
    thread        TEXT,             -- of what shows it
    sent_at       INTEGER,          -- of what shows it
    in_summary    INTEGER NOT NULL DEFAULT 0 CHECK (in_summary IN (0, 1)), -- a summary line shows it
    owner_id      INTEGER REFERENCES account (id), -- personal account that reacts for this person; null: the relay does
    UNIQUE (target_id, to_place, reactor_hash)
) STRICT;

CREATE INDEX reaction_entry ON reaction (entry_id);
CREATE INDEX reaction_changed_by ON reaction (changed_by);
CREATE INDEX reaction_shown ON reaction (to_place, shown_hash) WHERE shown_hash IS NOT NULL;


-- Edits

-- One edit event of a Matrix room. Ids only.
CREATE TABLE edit_event (
    place    TEXT    NOT NULL,
    event_id TEXT    NOT NULL, -- the edit
    target   TEXT,             -- the message; null: the edit was redacted before its room key arrived
    sent_at  INTEGER NOT NULL DEFAULT 0, -- by the homeserver's clock
    redacted INTEGER NOT NULL DEFAULT 0 CHECK (redacted IN (0, 1)),
    PRIMARY KEY (place, event_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX edit_event_target ON edit_event (place, target);

-- Newest edit of one message that was sent, or is to be sent, to one place. An edit whose room key arrives late must not
-- overwrite it.
CREATE TABLE latest_edit (
    place       TEXT NOT NULL, -- place of the message
    target      TEXT NOT NULL, -- the message
    to_place    TEXT NOT NULL,
    entry_id    INTEGER NOT NULL REFERENCES journal (id), -- the edit; after a redaction the message or edit it restored
    restored_by INTEGER REFERENCES journal (id), -- redaction of an edit that restores, or restored, the earlier text
    PRIMARY KEY (place, target, to_place)
) STRICT, WITHOUT ROWID;

-- One message or edit of a Matrix room whose complete text was certainly sent to a place, by itself or in its message. A
-- redaction of a later edit restores no other text. Ids only.
CREATE TABLE delivered_text (
    entry_id INTEGER NOT NULL REFERENCES journal (id),
    to_place TEXT    NOT NULL,
    PRIMARY KEY (entry_id, to_place)
) STRICT, WITHOUT ROWID;

-- Text of one message for one place that includes an edit from before the message was sent there. The journal keeps the
-- message's own payload, because other places may need it, and because it applies again when the edit is redacted.
CREATE TABLE rewritten (
    id       INTEGER PRIMARY KEY,
    entry_id INTEGER NOT NULL REFERENCES journal (id), -- the message
    to_place TEXT    NOT NULL,
    edit_id  INTEGER NOT NULL REFERENCES journal (id), -- the edit; the row with the newest one applies
    payload  BLOB,                                     -- sealed; null as soon as no delivery to the place needs it
    UNIQUE (entry_id, to_place, edit_id)
) STRICT;

CREATE INDEX rewritten_edit ON rewritten (edit_id);


-- Notices of the bridge

-- One notice that the bridge sent. Its id keeps it from being sent twice.
CREATE TABLE bridge_notice (
    notice_id   TEXT    PRIMARY KEY NOT NULL, -- event id of its entry
    portal_id   INTEGER NOT NULL REFERENCES portal (id), -- lane that sends it
    toward      TEXT    NOT NULL CHECK (toward IN ('matrix', 'silo')),
    edits       INTEGER NOT NULL DEFAULT 0, -- number of its edits; each is an entry: notice_id.1, notice_id.2, …
    about_place TEXT    NOT NULL            -- place whose messages it concerns; 'bridge:notice': none
) STRICT, WITHOUT ROWID;

-- One notice that the bridge edits when the state that it reports changes.
CREATE TABLE status_notice (
    notice_id  TEXT    PRIMARY KEY NOT NULL,
    portal_id  INTEGER NOT NULL REFERENCES portal (id), -- lane that shows it
    toward     TEXT    NOT NULL CHECK (toward IN ('matrix', 'silo')),
    topic      TEXT    NOT NULL CHECK (topic IN ('failure', 'closed-lane')),
    has_text   INTEGER NOT NULL DEFAULT 0 CHECK (has_text IN (0, 1)), -- the first text was written
    stale      INTEGER NOT NULL DEFAULT 1 CHECK (stale IN (0, 1)),    -- the text is missing or outdated
    updated_at INTEGER NOT NULL -- when the last failure was added to it
) STRICT, WITHOUT ROWID;

CREATE INDEX status_notice_stale ON status_notice (updated_at) WHERE stale = 1;
CREATE INDEX status_notice_lane ON status_notice (portal_id, toward, updated_at);

-- Undecryptable events of one sender that one set of notices reports.
CREATE TABLE undecryptable_group (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    place           TEXT    NOT NULL,
    sender          TEXT    NOT NULL,           -- user id
    reason          TEXT    NOT NULL,           -- a fixed word
    device          TEXT,                       -- device that sent them, where the reason concerns the device
    notified_at     INTEGER NOT NULL,
    decrypted       INTEGER NOT NULL DEFAULT 0, -- entries whose room keys arrived
    skipped         INTEGER NOT NULL DEFAULT 0, -- entries that were decrypted and are not relayed
    failed          INTEGER NOT NULL DEFAULT 0, -- entries whose room keys the bridge no longer waits for
    resolved        INTEGER NOT NULL DEFAULT 0 CHECK (resolved IN (0, 1)), -- no entry waits, and the notices say so
    sender_can_fix  INTEGER NOT NULL DEFAULT 0 CHECK (sender_can_fix IN (0, 1)),  -- the sender can remove the reason
    sender_notified INTEGER NOT NULL DEFAULT 0 CHECK (sender_notified IN (0, 1)), -- a notice in the sender's room reports it
    notice_outdated INTEGER NOT NULL DEFAULT 0 CHECK (notice_outdated IN (0, 1))  -- no entry waits, and the notices were not
                                                -- edited, because what they say still applies to new events
) STRICT;

CREATE INDEX undecryptable_group_sender ON undecryptable_group (place, sender, notified_at);
CREATE INDEX undecryptable_group_unresolved ON undecryptable_group (id) WHERE resolved = 0;
CREATE INDEX undecryptable_group_notice_outdated ON undecryptable_group (id) WHERE notice_outdated = 1;


-- Identities and replay protection

-- One ratchet index of a Megolm session that an event used. A homeserver cannot show the same message as a second event.
CREATE TABLE used_ratchet_index (
    session       TEXT    NOT NULL,
    ratchet_index INTEGER NOT NULL,
    event_id      TEXT    NOT NULL,
    sent_at       INTEGER NOT NULL, -- by the homeserver's clock
    seen_at       INTEGER NOT NULL,
    PRIMARY KEY (session, ratchet_index)
) STRICT, WITHOUT ROWID;

-- Range of used ratchet indexes of a session that has been idle for long. The event ids are forgotten.
CREATE TABLE used_ratchet_range (
    session TEXT    NOT NULL,
    first   INTEGER NOT NULL,
    last    INTEGER NOT NULL,
    PRIMARY KEY (session, first)
) STRICT, WITHOUT ROWID;

-- One event that was seen while its room was not linked. It is not relayed when a homeserver shows it again later.
CREATE TABLE before_link_event (
    id          INTEGER PRIMARY KEY,
    place       TEXT NOT NULL,
    fingerprint TEXT NOT NULL, -- event id, or digest of the ciphertext
    UNIQUE (place, fingerprint)
) STRICT;

CREATE INDEX before_link_event_age ON before_link_event (place, id);

-- Highest ratchet index of one Megolm session that was seen while its room was not linked.
CREATE TABLE before_link_index (
    session    TEXT PRIMARY KEY,
    place      TEXT NOT NULL,
    last_index INTEGER NOT NULL
) STRICT;

CREATE INDEX before_link_index_place ON before_link_index (place);

-- Cross-signing identity of one user that the bridge trusts: the first one seen, or the one that an operator accepted.
CREATE TABLE pinned_identity (
    user       TEXT    PRIMARY KEY NOT NULL,
    master_key TEXT    NOT NULL,
    pinned_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- One other cross-signing identity that was seen for a user. It stays until an operator accepts one of them, whatever
-- identity the homeserver shows later.
CREATE TABLE changed_identity (
    user       TEXT    NOT NULL,
    master_key TEXT    NOT NULL,
    seen_at    INTEGER NOT NULL,
    PRIMARY KEY (user, master_key)
) STRICT, WITHOUT ROWID;

-- One entry that waits until an operator accepts an identity. The row may stay after the entry no longer waits.
CREATE TABLE trust_hold (
    entry_id   INTEGER PRIMARY KEY REFERENCES journal (id),
    user       TEXT    NOT NULL,
    master_key TEXT -- identity that signed the device which sent the room key; null: none, or not looked up yet
) STRICT;

CREATE INDEX trust_hold_user ON trust_hold (user);


-- Media

-- One avatar that was uploaded. It is uploaded once and used again.
CREATE TABLE uploaded_avatar (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    lookup_hash TEXT    NOT NULL UNIQUE, -- keyed hash of the avatar and of its encryption
    payload     BLOB    NOT NULL,        -- sealed: location and decryption key
    saved_at    INTEGER NOT NULL
) STRICT;

-- One file of a message that a gateway link serves, until the link expires or the message is deleted.
CREATE TABLE media_link (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    lookup_hash TEXT    NOT NULL UNIQUE,                  -- keyed hash of the file and of the place that gets the link
    entry_id    INTEGER NOT NULL REFERENCES journal (id), -- the message
    payload     BLOB    NOT NULL,                         -- sealed: location and decryption key
    expires_at  INTEGER NOT NULL
) STRICT;

CREATE INDEX media_link_entry ON media_link (entry_id);


-- Accounts and sync

-- One Matrix account on one device. The row stays when the account is logged out: its sync continues after the next login.
CREATE TABLE account (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    role         TEXT    NOT NULL -- 'relay': it speaks for everyone; 'personal': a person's own, which speaks as that person
        CHECK (role IN ('relay', 'personal')),
    state        TEXT    NOT NULL CHECK (state IN ('active', 'signed-out')),
    user_id      TEXT    NOT NULL UNIQUE,
    device_id    TEXT    NOT NULL,
    homeserver   TEXT    NOT NULL, -- base URL
    ed25519      TEXT,             -- public fingerprint key of the device
    master_key   TEXT,             -- public cross-signing master key
    session      BLOB,             -- sealed; null: signed out
    recovery_key BLOB,             -- sealed; the next login needs it, too
    logged_in_at INTEGER NOT NULL
) STRICT;

-- One account on a silo that a Matrix user has proved to be theirs: what it writes is sent by the user's personal account.
CREATE TABLE person (
    silo      TEXT    NOT NULL, -- name of the silo in the configuration
    silo_user TEXT    NOT NULL, -- immutable id of the account there
    silo_name TEXT    NOT NULL, -- its name when it was proved
    user_id   TEXT    NOT NULL, -- the Matrix user
    proved_at INTEGER NOT NULL,
    told_in   TEXT    NOT NULL, -- place in which the user is told what becomes of it
    PRIMARY KEY (silo, silo_user)
) STRICT, WITHOUT ROWID;

CREATE INDEX person_user ON person (user_id);

-- One code that a Matrix user must post on a silo to prove that an account there is theirs.
CREATE TABLE person_code (
    user_id    TEXT    NOT NULL,
    silo       TEXT    NOT NULL,
    code       TEXT    NOT NULL UNIQUE,
    asked_in   TEXT    NOT NULL, -- place that gets the answer
    expires_at INTEGER NOT NULL,
    proved     TEXT,             -- name of the account that posted it; null: none yet
    PRIMARY KEY (user_id, silo)
) STRICT, WITHOUT ROWID;

-- An account's previous device, until it is logged out. Its crypto store must be moved before another device can be replaced.
CREATE TABLE former_device (
    account_id     INTEGER PRIMARY KEY REFERENCES account (id),
    device_id      TEXT    NOT NULL,
    homeserver     TEXT    NOT NULL,
    session        BLOB    NOT NULL, -- sealed
    store_in_place INTEGER NOT NULL CHECK (store_in_place IN (0, 1)) -- its crypto store is where the new device's belongs
) STRICT;

-- One message of an earlier device whose delivery was not recorded as done. The bridge finds it in the room by its
-- transaction id.
CREATE TABLE former_send (
    place           TEXT    NOT NULL,
    transaction_key TEXT    NOT NULL, -- that of the delivery; '': an event of the device could not be read
    event_id        TEXT    NOT NULL,
    sent_at         INTEGER NOT NULL,
    PRIMARY KEY (place, transaction_key)
) STRICT, WITHOUT ROWID;

-- Position of one listener in its stream. That of a room is the newest event that any account has read there.
CREATE TABLE cursor (
    name  TEXT PRIMARY KEY NOT NULL,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Range of events of one place that the bridge must still fetch.
CREATE TABLE gap (
    place         TEXT PRIMARY KEY NOT NULL,
    from_position TEXT NOT NULL, -- newest event of the range, or the position of the sync that left it out
    until_event   TEXT           -- newest event from before the range; null: there is none
) STRICT, WITHOUT ROWID;

-- One property that a place keeps for ever, such as "was encrypted once".
CREATE TABLE place_flag (
    place  TEXT NOT NULL,
    flag   TEXT NOT NULL,
    set_at INTEGER NOT NULL,
    PRIMARY KEY (place, flag)
) STRICT, WITHOUT ROWID;
