//! How our words stand in columns.

use std::borrow::Cow;

use rusqlite::{
    Row, ToSql,
    types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef},
};

use sha2::{Digest, Sha256};

use crate::{DeliveryId, EntryId, LaneId, Millis, Place, PortalId, RemoteId, Side};

macro_rules! integer_column {
    ($($name:ident),+) => {$(
        impl ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                self.0.to_sql()
            }
        }

        impl FromSql for $name {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                i64::column_result(value).map(Self)
            }
        }
    )+};
}

integer_column!(PortalId, EntryId, DeliveryId, Millis);

impl ToSql for Place {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.as_str().into())
    }
}

impl FromSql for Place {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Self::parse(value.as_str()?).ok_or(FromSqlError::InvalidType)
    }
}

/// No network has longer ids, in bytes. What is longer was made up by somebody, names nothing, and is not kept whole.
const LONGEST: usize = 255;

impl ToSql for RemoteId {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match bounded(self.as_str()) {
            Cow::Borrowed(id) => id.into(),
            Cow::Owned(id) => id.into(),
        })
    }
}

/// A name that somebody else has given something, in at most 255 bytes: of a longer one a hash is left, so that it is known
/// again all the same.
pub(crate) fn bounded(name: &str) -> Cow<'_, str> {
    if name.len() <= LONGEST {
        return name.into();
    }
    let hash = Sha256::digest(name);
    let hash = hash
        .iter()
        .take(16)
        .fold(0_u128, |sum, byte| sum << 8 | u128::from(*byte));
    format!("long-{hash:032x}").into()
}

/// What another side answered, in at most 300 characters.
pub(crate) fn sentence(answer: &str) -> String {
    const LONGEST: usize = 300;
    let cut = answer.char_indices().nth(LONGEST);
    let text = cut.map_or(answer, |(end, _)| answer.get(..end).unwrap_or_default());
    text.to_owned()
}

impl FromSql for RemoteId {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_str().map(Self::from)
    }
}

impl ToSql for Side {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.as_str().into())
    }
}

impl FromSql for Side {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        [Self::Matrix, Self::Silo]
            .into_iter()
            .find(|side| Ok(side.as_str()) == value.as_str())
            .ok_or(FromSqlError::InvalidType)
    }
}

/// Reads a lane from the columns `portal_id` and `toward`.
pub(crate) fn lane(row: &Row<'_>) -> rusqlite::Result<LaneId> {
    Ok(LaneId {
        portal: row.get("portal_id")?,
        toward: row.get("toward")?,
    })
}
