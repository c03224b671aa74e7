//! How the types of the store are stored in columns.

use std::borrow::Cow;

use rusqlite::{
    Row, ToSql,
    types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef},
};

use sha2::{Digest, Sha256};

use crate::{AccountId, DeliveryId, EntryId, LaneId, Millis, Place, PortalId, RemoteId, Side};

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

integer_column!(AccountId, PortalId, EntryId, DeliveryId, Millis);

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

/// No network has longer ids, in bytes. A longer one was invented by somebody, refers to nothing, and is not stored in full.
const MAX_NAME_BYTES: usize = 255;

impl ToSql for RemoteId {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match bound_name(self.as_str()) {
            Cow::Borrowed(id) => id.into(),
            Cow::Owned(id) => id.into(),
        })
    }
}

/// A name given by another party, in at most 255 bytes. A longer one becomes a hash, so that it can still be recognised.
pub(crate) fn bound_name(name: &str) -> Cow<'_, str> {
    if name.len() <= MAX_NAME_BYTES {
        return name.into();
    }
    let hash = Sha256::digest(name);
    let hash = hash
        .iter()
        .take(16)
        .fold(0_u128, |sum, byte| sum << 8 | u128::from(*byte));
    format!("long-{hash:032x}").into()
}

/// What a network answered, in at most 300 characters.
pub(crate) fn truncate_reason(answer: &str) -> String {
    const MAX_NAME_BYTES: usize = 300;
    let cut = answer.char_indices().nth(MAX_NAME_BYTES);
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
