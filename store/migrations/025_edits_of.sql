-- Which events replaced the text of a copy is asked for whatever changes or takes back a message.
CREATE INDEX link_edits ON link (place, edits) WHERE edits IS NOT NULL;
